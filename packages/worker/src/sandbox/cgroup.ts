import { mkdir, readdir, readFile, rmdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Hierarchy } from './cgroup-mounts.ts'
import { findHierarchies } from './hierarchies.ts'
import { isDelegated } from './unified.ts'

export interface Limits {
  vcpus: number
  memoryMB: number
  pids: number
}

/** The control groups of one sandbox. */
export interface Cgroup {
  /** A process joins by writing 0 to `cgroup.procs` in each */
  directories: string[]
  limit(limits: Limits): Promise<void>
  /** How many processes the kernel has killed here for want of memory */
  oomKills(): Promise<number>
  /** Kills what is left and removes the groups */
  remove(): Promise<void>
}

/** Where this worker's control groups are made. */
export interface Cgroups {
  limitations: string[]
  create(name: string): Promise<Cgroup>
  /** Names of groups that begin with `prefix`, of an earlier worker that was killed */
  list(prefix: string): Promise<string[]>
  open(name: string): Cgroup
}

/** Without its cgroup the number of processes is still bounded, by a resource limit of the user namespace. */
const UNENFORCED: Record<string, string> = {
  cpu: 'CPU limits of sandboxes are not enforced',
  memory: 'Memory limits of sandboxes are not enforced',
}

/** Where the kernel tells of this process, and whether systemd has handed a group of v2 to who runs in it. */
const HOST = { self: '/proc/self', isDelegated }

/** Finds what this process may use: cgroup v2 as root or delegated, v1 as root, or nothing. */
export async function openCgroups(host = HOST): Promise<Cgroups> {
  const hierarchies = await findHierarchies(host.self, host.isDelegated)
  const usable = hierarchies.flatMap((hierarchy) => hierarchy.controllers)
  const missing = Object.keys(UNENFORCED).filter((controller) => !usable.includes(controller))
  const open = (name: string) => cgroup(hierarchies, name)
  return {
    limitations: missing.map((name) => `${UNENFORCED[name]}: ${whyNot(name, hierarchies.length > 0)}`),
    open,
    async create(name) {
      const created = open(name)
      for (const directory of created.directories) await mkdir(directory)
      return created
    },
    async list(prefix) {
      const names = await Promise.all(hierarchies.map(({ directory }) => readdir(directory)))
      return [...new Set(names.flat().filter((name) => name.startsWith(prefix)))]
    },
  }
}

function whyNot(controller: string, hasSome: boolean): string {
  if (process.getuid?.() === 0)
    return `no cgroup with the controller ${controller} is writable here. A container needs /sys/fs/cgroup writable.`
  if (!hasSome)
    return (
      'no cgroup was delegated to this process. ' +
      'Start paws as root or, on cgroup v2, put "systemd-run --user --scope -p Delegate=yes" before its command.'
    )
  return (
    `no cgroup of this process has the controller ${controller}. As root: "systemctl edit user@.service", ` +
    `write "[Service]" and "Delegate=cpu memory pids", then "systemctl restart user@${process.getuid?.()}".`
  )
}

function cgroup(hierarchies: Hierarchy[], name: string): Cgroup {
  const groups = hierarchies.map((hierarchy) => ({ ...hierarchy, directory: join(hierarchy.directory, name) }))
  return {
    directories: groups.map((group) => group.directory),
    async limit(limits) {
      await Promise.all(groups.flatMap((group) => group.controllers.map((name) => setLimit(group, name, limits))))
    },
    async oomKills() {
      const group = groups.find((group) => group.controllers.includes('memory'))
      if (!group) return 0
      const text = await readFile(
        join(group.directory, group.version === 1 ? 'memory.oom_control' : 'memory.events'),
        'utf8',
      )
      return Number(/^oom_kill (\d+)$/m.exec(text)?.[1] ?? 0)
    },
    async remove() {
      await Promise.all(groups.map((group) => removeGroup(group.directory)))
    },
  }
}

async function setLimit({ directory, version }: Hierarchy, controller: string, limits: Limits) {
  // Asked to create a file that it hasn't, the kernel would answer EACCES.
  const write = (file: string, value: string | number) => writeFile(join(directory, file), `${value}`, { flag: 'r+' })
  const bytes = limits.memoryMB * 1024 * 1024
  const quotaUs = Math.round(limits.vcpus * 100_000)
  if (controller === 'pids') await write('pids.max', limits.pids)
  else if (controller === 'cpu' && version === 1) {
    await write('cpu.cfs_period_us', 100_000)
    await write('cpu.cfs_quota_us', quotaUs)
  } else if (controller === 'cpu') await write('cpu.max', `${quotaUs} 100000`)
  else if (version === 2) {
    await write('memory.max', bytes)
    await write('memory.swap.max', 0).catch(ignoreMissing)
  } else {
    await write('memory.limit_in_bytes', bytes)
    await write('memory.memsw.limit_in_bytes', bytes).catch(ignoreMissing)
  }
}

// Kernels without swap accounting have no such file.
function ignoreMissing(error: NodeJS.ErrnoException) {
  if (error.code !== 'ENOENT') throw error
}

/** How long a killed process may take to go; one that waits for broken hardware never does */
const PATIENCE_MS = 30_000

// A group stays busy for some milliseconds after its last process has gone.
async function removeGroup(directory: string) {
  const until = performance.now() + PATIENCE_MS
  for (let waitMs = 1; ; waitMs = Math.min(waitMs * 2, 100)) {
    try {
      return await rmdir(directory)
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException
      if (code === 'ENOENT') return
      if (code !== 'EBUSY' || performance.now() > until) throw error
    }
    await killAll(directory)
    await sleep(waitMs)
  }
}

async function killAll(directory: string) {
  const pids = await readFile(join(directory, 'cgroup.procs'), 'utf8')
  for (const pid of pids.split('\n').filter(Boolean)) {
    try {
      process.kill(Number(pid), 'SIGKILL')
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error
    }
  }
}
