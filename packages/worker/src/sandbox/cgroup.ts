import { access, constants, mkdir, readdir, readFile, rmdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'

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

/** One hierarchy that sandboxes get a group in: a folder, and which controllers work there. */
interface Hierarchy {
  directory: string
  controllers: string[]
  version: 1 | 2
}

const WANTED = ['cpu', 'memory', 'pids']
/** Without its cgroup the number of processes is still bounded, by a resource limit of the user namespace. */
const UNENFORCED: Record<string, string> = {
  cpu: 'CPU limits of sandboxes are not enforced',
  memory: 'Memory limits of sandboxes are not enforced',
}

/**
 * Finds what this process may use: cgroup v2 as root or delegated, v1 as root, or nothing.
 *
 * @param self where the kernel tells of this process
 */
export async function openCgroups(self = '/proc/self'): Promise<Cgroups> {
  const hierarchies = await findHierarchies(self)
  const usable = hierarchies.flatMap((hierarchy) => hierarchy.controllers)
  const missing = Object.keys(UNENFORCED).filter((controller) => !usable.includes(controller))
  const open = (name: string) => cgroup(hierarchies, name)
  return {
    limitations: missing.map(
      (controller) =>
        `${UNENFORCED[controller]}: this user has no delegated ${controller} cgroup ` +
        '(run the worker as root, or by "systemd-run --user --scope -p Delegate=yes").',
    ),
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
  const write = (file: string, value: string | number) => writeFile(join(directory, file), `${value}`)
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

async function findHierarchies(self: string): Promise<Hierarchy[]> {
  const mounts = await readMounts(self)
  const own = await readFile(join(self, 'cgroup'), 'utf8')
  const found: Hierarchy[] = []
  for (const line of own.trim().split('\n')) {
    const [, names, path] = /^\d+:([^:]*):(.*)$/.exec(line) ?? []
    if (names === undefined || path === undefined) continue
    const hierarchy = names === '' ? await unified(mounts, path) : await legacy(mounts, names.split(','), path)
    if (hierarchy) found.push(hierarchy)
  }
  return found
}

interface Mount {
  /** The part of the hierarchy that is mounted */
  root: string
  at: string
  type: string
  options: string[]
}

async function readMounts(self: string): Promise<Mount[]> {
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

/** Below the group that this process is in, so that what limits the worker limits its sandboxes too. */
async function legacy(mounts: Mount[], names: string[], path: string): Promise<Hierarchy | undefined> {
  const controllers = names.filter((name) => WANTED.includes(name))
  const mount = mounts.find(({ type, options }) => type === 'cgroup' && names.every((name) => options.includes(name)))
  if (!mount || controllers.length === 0) return undefined
  const directory = join(mount.at, mount.root === '/' ? path : path.slice(mount.root.length))
  return (await isWritable(directory)) ? { directory, controllers, version: 1 } : undefined
}

/**
 * In v2 a group that has processes can't hand controllers on. Root makes its groups at the top, which may; somebody else
 * moves this process into a leaf of the group that was delegated to it.
 */
async function unified(mounts: Mount[], path: string): Promise<Hierarchy | undefined> {
  const mount = mounts.find(({ type }) => type === 'cgroup2')
  if (!mount) return undefined
  const root = process.getuid?.() === 0
  // A second look finds this process in the leaf that the first moved it to.
  const directory = root ? mount.at : join(mount.at, path.replace(/\/paws-worker$/, ''))
  if (!(await isWritable(directory))) return undefined
  const offered = (await readFile(join(directory, 'cgroup.controllers'), 'utf8')).trim().split(' ')
  const controllers = offered.filter((name) => WANTED.includes(name))
  if (controllers.length === 0) return undefined
  const handOn = () =>
    writeFile(join(directory, 'cgroup.subtree_control'), controllers.map((name) => `+${name}`).join(' '))
  try {
    await handOn().catch(async (error: NodeJS.ErrnoException) => {
      if (error.code !== 'EBUSY') throw error
      await moveToLeaf(directory)
      await handOn()
    })
  } catch {
    // Others live in that group too, or it isn't this user's: then nothing is enforced here, and that is said.
    return undefined
  }
  return { directory, controllers, version: 2 }
}

async function moveToLeaf(directory: string) {
  const leaf = join(directory, 'paws-worker')
  await mkdir(leaf, { recursive: true })
  await writeFile(join(leaf, 'cgroup.procs'), `${process.pid}`)
}

async function isWritable(directory: string): Promise<boolean> {
  return access(directory, constants.W_OK).then(
    () => true,
    () => false,
  )
}
