import { randomBytes } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { mkdir, readdir, rmdir } from 'node:fs/promises'
import { join } from 'node:path'
import type { Duplex } from 'node:stream'
import type { Cgroup, Cgroups } from './cgroup.ts'
import { type Disks, untilDetached } from './disk.ts'
import { closeNamespaces, type Helper, startHelper } from './helper.ts'
import type { IdMap } from './id-map.ts'
import { closeToRange, openToRange, removeTree } from './id-range.ts'
import type { Outlet, Outlets } from './outlet.ts'

/** What slots are made of and where; the same for all slots of a driver. */
export interface SlotOptions {
  dataDir: string
  /** Begins every name, so that one worker's slots are told from another's */
  prefix: string
  /** Paths of the slot helper, the guest agent and the seccomp program */
  helper: string
  guestAgent: string
  seccomp: string
  pids: number
  ids: IdMap
  cgroups: Cgroups
  disks: Disks
  outlets: Outlets
}

/**
 * The place of one sandbox: a network without a wire, user namespaces, control groups and a disk, and in it a process
 * that waits to become the sandbox. It serves one sandbox and is thrown away.
 */
export interface Slot {
  name: string
  diskMB: number
  cgroup: Cgroup
  /** Leads out of its network */
  outlet: Outlet
  /** Leads to the guest agent, once there is one */
  stream: Duplex
  /** Whether its process still lives */
  alive(): boolean
  /** Resolves, with what the process said last, when it and all processes of the sandbox are gone */
  ended: Promise<string>
  /** Image directory, text of /etc/hosts, then the program to become, with its arguments */
  order(strings: string[]): void
  kill(): void
  /** Gives back everything; for a slot that has ended */
  release(): Promise<void>
}

export async function makeSlot(options: SlotOptions, diskMB: number): Promise<Slot> {
  const { dataDir, disks, ids } = options
  const name = `${options.prefix}${randomBytes(6).toString('hex')}`
  const folder = join(dataDir, 'slots', name)
  const image = join(folder, 'disk.ext4')
  let device: string | undefined
  let helper: Helper | undefined
  let outlet: Outlet | undefined
  let alive = false
  await mkdir(folder)
  const cgroup = await options.cgroups.create(name).catch(async (error) => {
    await rmdir(folder)
    throw error
  })
  const release = async () => {
    await outlet?.close()
    await Promise.all([cgroup.remove(), device && untilDetached(device, image)])
    if (helper) await closeNamespaces(helper.namespaces)
    await removeTree(ids, folder)
  }
  try {
    // A worker that isn't root can't give a folder away: sandboxed root makes its own in here, then the door closes.
    await (disks.enforced ? closeToRange(folder) : openToRange(folder))
    if (disks.enforced) {
      await mkdir(join(folder, 'disk'))
      if (diskMB !== disks.template?.sizeMB) await disks.create(image, diskMB)
    }
    helper = await startHelper(options.helper, helperArguments(options, cgroup, { name, image, diskMB }), ids, dataDir)
    const { namespaces, pid, talk, stream, ended } = helper
    alive = true
    void ended.then(() => {
      alive = false
    })
    const ready = await talk.hear('ready')
    if (disks.enforced) device = ready
    else await closeToRange(folder)
    outlet = await options.outlets.open({ name, user: namespaces.user.fd, net: namespaces.net.fd })
    return {
      name,
      diskMB,
      cgroup,
      outlet,
      stream,
      alive: () => alive,
      ended,
      order: (strings) => talk.answer([...strings, ''].map((text) => `${text}\0`).join('')),
      kill: () => {
        if (alive) killTree(pid)
      },
      release,
    }
  } catch (error) {
    if (helper && alive) killTree(helper.pid)
    await helper?.ended
    await release()
    throw error
  }
}

function helperArguments(
  options: SlotOptions,
  cgroup: Cgroup,
  { name, image, diskMB }: { name: string; image: string; diskMB: number },
): string[] {
  const { enforced, template } = options.disks
  return [
    ...['--data', options.dataDir, '--name', name, '--pids', `${options.pids}`],
    ...['--agent', options.guestAgent, '--seccomp', options.seccomp],
    ...(options.ids.owners ? ['--owners', `${options.ids.owners}`] : []),
    ...(enforced ? ['--disk', image] : []),
    ...(template?.sizeMB === diskMB ? ['--disk-like', template.file] : []),
    ...cgroup.directories.flatMap((directory) => ['--cgroup', directory]),
  ]
}

/**
 * Kills the sandbox's process 1, if there is one yet: bubblewrap, which waits for it, ends when the kernel has ended
 * everything inside. Killed first, bubblewrap would leave before that.
 */
function killTree(pid: number) {
  try {
    const children = readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').split(' ').filter(Boolean)
    for (const target of children.length > 0 ? children : [pid]) process.kill(Number(target), 'SIGKILL')
  } catch (error) {
    // It has ended meanwhile, or is about to.
    if (!['ENOENT', 'ESRCH'].includes((error as NodeJS.ErrnoException).code ?? '')) throw error
  }
}

/** Removes what an earlier worker of the same name left when it was killed. */
export async function removeSlots(options: SlotOptions): Promise<void> {
  const folders = await readdir(join(options.dataDir, 'slots'))
  const groups = await options.cgroups.list(options.prefix)
  for (const name of groups) await options.cgroups.open(name).remove()
  for (const name of folders) {
    if (name.startsWith(options.prefix)) await removeTree(options.ids, join(options.dataDir, 'slots', name))
  }
}
