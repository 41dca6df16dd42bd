import { access, constants, readFile } from 'node:fs/promises'
import { join } from 'node:path'

/** One hierarchy that sandboxes get a group in: a folder, and which controllers work there. */
export interface Hierarchy {
  directory: string
  controllers: string[]
  version: 1 | 2
}

/** A cgroup filesystem */
export interface Mount {
  /** The part of the hierarchy that is mounted */
  root: string
  at: string
  type: string
  options: string[]
}

export const WANTED = ['cpu', 'memory', 'pids']

export async function readMounts(self: string): Promise<Mount[]> {
  const text = await readFile(join(self, 'mountinfo'), 'utf8')
  return text
    .trim()
    .split('\n')
    .map((line) => {
      const [before = '', after = ''] = line.split(' - ')
      const [, , , root = '', at = ''] = before.split(' ')
      const [type = '', , options = ''] = after.split(' ')
      return { root, at, type, options: options.split(',') }
    })
    .filter((mount) => mount.type.startsWith('cgroup'))
}

export function folderOf(mount: Mount, path: string): string {
  return join(mount.at, mount.root === '/' ? path : path.slice(mount.root.length))
}

export async function isWritable(directory: string): Promise<boolean> {
  return access(directory, constants.W_OK).then(
    () => true,
    () => false,
  )
}
