import { execFile } from 'node:child_process'
import { mkdir, readFile, writeFile } from 'node:fs/promises'
import { basename, join } from 'node:path'
import { promisify } from 'node:util'
import { folderOf, type Hierarchy, isWritable, type Mount, WANTED } from './cgroup-mounts.ts'

const run = promisify(execFile)

/** Where the processes of a delegated group go, since in v2 a group that has some can't hand controllers on */
const LEAF = 'paws-worker'
/**
 * Where sandboxes have their groups. systemd takes controllers away from the groups beside its own when none of its
 * units wants them; those that a group hands on itself it can't.
 */
const SANDBOXES = 'paws-sandboxes'
/** Processes that fork while they are moved may leave children behind */
const MOST_MOVES = 20

/**
 * Inside the group that was delegated to this process, so that what limits the worker limits its sandboxes too. Root
 * without one makes its groups at the top.
 */
export async function unified(
  mounts: Mount[],
  path: string,
  isDelegated: (path: string) => Promise<boolean>,
): Promise<Hierarchy | undefined> {
  const mount = mounts.find(({ type }) => type === 'cgroup2')
  // Beside v1 it is mounted with no controllers.
  if (!mount || (await wantedOf(mount.at)).length === 0) return undefined
  // A second look finds this process in the leaf that the first moved it to.
  const own = path.endsWith(`/${LEAF}`) ? path.slice(0, -LEAF.length - 1) || '/' : path
  const delegated = (await isWritable(folderOf(mount, own))) && (await isDelegated(own))
  if (!delegated && process.getuid?.() !== 0) return undefined
  const group = delegated ? folderOf(mount, own) : mount.at
  const controllers = await wantedOf(group)
  if (controllers.length === 0) return undefined
  const directory = join(group, SANDBOXES)
  try {
    await handOnPastProcesses(group, controllers)
    await mkdir(directory, { recursive: true })
    await handOn(directory, controllers)
  } catch {
    // It is mounted read-only, or others live in it too: then nothing is enforced here, and that is said.
    return undefined
  }
  return { directory, controllers, version: 2 }
}

async function wantedOf(group: string): Promise<string[]> {
  // Whether it isn't there or can't be read: no controller can be used.
  const offered = await readFile(join(group, 'cgroup.controllers'), 'utf8').catch(() => '')
  return WANTED.filter((name) => offered.trim().split(' ').includes(name))
}

async function handOn(group: string, controllers: string[]) {
  await writeFile(join(group, 'cgroup.subtree_control'), controllers.map((name) => `+${name}`).join(' '))
}

async function handOnPastProcesses(group: string, controllers: string[]) {
  for (let moves = 0; ; moves++) {
    try {
      return await handOn(group, controllers)
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EBUSY' || moves === MOST_MOVES) throw error
    }
    await moveToLeaf(group)
  }
}

/** All of them: beside this process its supervisor and what else that has started live there. */
async function moveToLeaf(group: string) {
  const leaf = join(group, LEAF)
  await mkdir(leaf, { recursive: true })
  const pids = await readFile(join(group, 'cgroup.procs'), 'utf8')
  for (const pid of pids.split('\n').filter(Boolean)) {
    await writeFile(join(leaf, 'cgroup.procs'), pid).catch((error: NodeJS.ErrnoException) => {
      // It has ended meanwhile.
      if (error.code !== 'ESRCH') throw error
    })
  }
}

/**
 * Whether systemd leaves the inside of this group to who runs in it. A user may write to the groups of all units of
 * their own systemd, but to a group of the system's only if it was given to them.
 */
export async function isDelegated(path: string): Promise<boolean> {
  const root = process.getuid?.() === 0
  const unit = basename(path)
  const uid = /\/user@(\d+)\.service\/./.exec(path)?.[1]
  if (!root && (!uid || !/\.(service|scope|slice)$/.test(unit))) return true
  if (unit === '') return false
  const env = { PATH: '/usr/bin:/bin', XDG_RUNTIME_DIR: `/run/user/${uid}` }
  const args = [...(uid ? ['--user'] : []), 'show', '--property=Delegate', '--value', '--', unit]
  // Without systemd, nobody has delegated anything.
  const { stdout } = await run('systemctl', args, { env }).catch(() => ({ stdout: '' }))
  return stdout.trim() === 'yes'
}
