import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { folderOf, type Hierarchy, isWritable, type Mount, readMounts, WANTED } from './cgroup-mounts.ts'
import { unified } from './unified.ts'

/** Those that this process may make groups in. */
export async function findHierarchies(
  self: string,
  isDelegated: (path: string) => Promise<boolean>,
): Promise<Hierarchy[]> {
  const mounts = await readMounts(self)
  const own = await readFile(join(self, 'cgroup'), 'utf8')
  const found: Hierarchy[] = []
  for (const line of own.trim().split('\n')) {
    const [, names, path] = /^\d+:([^:]*):(.*)$/.exec(line) ?? []
    if (names === undefined || path === undefined) continue
    const hierarchy =
      names === '' ? await unified(mounts, path, isDelegated) : await legacy(mounts, names.split(','), path)
    if (hierarchy) found.push(hierarchy)
  }
  return found
}

/** Below the group that this process is in, so that what limits the worker limits its sandboxes too. */
async function legacy(mounts: Mount[], names: string[], path: string): Promise<Hierarchy | undefined> {
  const controllers = names.filter((name) => WANTED.includes(name))
  const mount = mounts.find(({ type, options }) => type === 'cgroup' && names.every((name) => options.includes(name)))
  if (!mount || controllers.length === 0) return undefined
  const directory = folderOf(mount, path)
  return (await isWritable(directory)) ? { directory, controllers, version: 1 } : undefined
}
