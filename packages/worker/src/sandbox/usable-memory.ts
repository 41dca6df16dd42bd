import { readFile } from 'node:fs/promises'
import { totalmem } from 'node:os'
import { dirname, join } from 'node:path'
import { folderOf, readMounts } from './cgroup-mounts.ts'

/** What this process and its sandboxes may take together: the machine's memory, or less where a control group says so. */
export async function usableMemoryMB(self = '/proc/self'): Promise<number> {
  const limits = [totalmem(), process.constrainedMemory() || totalmem(), ...(await limitsAbove(self))]
  return Math.floor(Math.min(...limits) / 1024 ** 2)
}

// Node looks at its own group only, and in the leaf of a delegated group there is no limit to see.
async function limitsAbove(self: string): Promise<number[]> {
  const mount = (await readMounts(self)).find(({ type }) => type === 'cgroup2')
  const path = /^0::(.*)$/m.exec(await readFile(join(self, 'cgroup'), 'utf8'))?.[1]
  if (!mount || path === undefined) return []
  const limits: number[] = []
  for (let group = folderOf(mount, path); group.startsWith(mount.at); group = dirname(group)) {
    // The topmost group has no such file.
    const limit = Number(await readFile(join(group, 'memory.max'), 'utf8').catch(() => 'max'))
    if (!Number.isNaN(limit)) limits.push(limit)
  }
  return limits
}
