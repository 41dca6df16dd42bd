import { access, chmod, constants, mkdir, rename, rm, stat, writeFile } from 'node:fs/promises'
import { join, relative } from 'node:path'
import type { Logger } from 'pino'
import { bubblewrapCommand } from './bubblewrap.ts'
import { openCgroups } from './cgroup.ts'
import { openDisks } from './disk.ts'
import type { Driver, SandboxSpec } from './driver.ts'
import { openIdMap } from './id-map.ts'
import type { Outlet, Outlets } from './outlet.ts'
import { openPool } from './pool.ts'
import { type Running, startSandbox } from './process-sandbox.ts'
import { seccompProgram } from './seccomp.ts'
import { makeSlot, removeSlots, type Slot, type SlotOptions } from './slots.ts'

export interface ProcessDriverOptions {
  /**
   * Where sandboxes keep what they write. Snapshots below it are found even when the folders above it are closed to
   * others; those elsewhere must be within reach of everybody.
   */
  dataDir: string
  /** Paths of the built guest agent and of the built slot helper */
  guestAgent: string
  slotHelper: string
  /** Told from every other worker's on this host; what an earlier worker of this name left is removed */
  instance: string
  /** How many slots are kept ready, and with a disk of which size */
  slots: number
  diskMB: number
  /** Ways out of sandboxes; whoever opened them closes them, after the driver */
  outlets: Outlets
  log: Pick<Logger, 'warn'>
}

/** Most processes and threads in one sandbox */
const MOST_PIDS = 1024

/**
 * Sandboxes as processes: bubblewrap in namespaces of its own, in a slot that was made before. Weaker than a virtual
 * machine, since the host's kernel answers the system calls of what runs inside.
 */
export async function createProcessDriver(options: ProcessDriverOptions): Promise<Driver> {
  const { dataDir, log } = options
  const bubblewrap = await findProgram('bwrap', 'bubblewrap')
  const slotOptions = await prepare(options)
  await removeSlots(slotOptions)
  const live = new Set<Promise<Running>>()
  const warn = (error: unknown) => log.warn({ err: error }, 'What a sandbox held was not given back')
  const pool = openPool<Slot>({
    size: options.slots,
    make: () => makeSlot(slotOptions, options.diskMB),
    usable: (slot) => slot.alive(),
    discard: (slot) => void slot.release().catch(warn),
    failed: (error) => log.warn({ err: error }, 'No slot could be made ahead'),
  })
  let open = true
  await pool.filled().catch(async (cause: unknown) => {
    await endAll(await pool.drain())
    // Such a worker would take sessions only to fail them.
    throw new Error(`This host makes no sandbox: ${cause instanceof Error ? cause.message : cause}`, { cause })
  })

  // Only disks of the usual size are made ahead.
  const takeSlot = ({ diskMB }: SandboxSpec) =>
    diskMB === options.diskMB || !slotOptions.disks.enforced ? pool.take() : makeSlot(slotOptions, diskMB)

  async function begin(spec: SandboxSpec, onOutlet?: (outlet: Outlet) => void): Promise<Running> {
    const files = [findFrom(dataDir, spec.imageDir), hosts(spec.hostname)]
    const order = [...files, ...bubblewrapCommand(bubblewrap, spec)]
    const slot = await takeSlot(spec)
    onOutlet?.(slot.outlet)
    return startSandbox(slot, { ...spec, pids: MOST_PIDS }, order)
  }

  return {
    isolation: 'process',
    limitations: [...slotOptions.cgroups.limitations, ...slotOptions.disks.limitations],
    async start(spec, onOutlet) {
      if (!open) throw new Error('No sandbox can be started: the worker is closing.')
      const running = begin(spec, onOutlet)
      live.add(running)
      // Who asked for a sandbox that could not start hears of that.
      void running
        .then(
          ({ released }) => released.catch(warn),
          () => undefined,
        )
        .finally(() => live.delete(running))
      return (await running.finally(pool.refill)).sandbox
    },
    async close() {
      open = false
      const idle = await pool.drain()
      for (const slot of idle) slot.kill()
      await Promise.all([
        ...[...live].map((running) =>
          running.then(
            ({ sandbox }) => sandbox.stop(),
            () => undefined,
          ),
        ),
        ...idle.map((slot) => slot.ended.then(() => slot.release())),
      ])
      if (slotOptions.disks.template) await rm(slotOptions.disks.template.file)
    },
  }
}

async function endAll(slots: Slot[]): Promise<void> {
  for (const slot of slots) slot.kill()
  await Promise.all(slots.map((slot) => slot.ended.then(() => slot.release())))
}

async function prepare({ dataDir, diskMB, ...options }: ProcessDriverOptions): Promise<SlotOptions> {
  const { guestAgent, slotHelper, instance, outlets } = options
  await mkdir(join(dataDir, 'slots'), { recursive: true, mode: 0o711 })
  // Root inside is nobody here, and passes this folder to what it may see below.
  const { mode } = await stat(dataDir)
  if ((mode & 0o011) !== 0o011) await chmod(dataDir, (mode & 0o777) | 0o011)
  const seccomp = join(dataDir, 'seccomp.bpf')
  await writeFile(`${seccomp}.${instance}`, seccompProgram())
  await rename(`${seccomp}.${instance}`, seccomp)
  const ids = await openIdMap()
  return {
    ...{ dataDir, guestAgent, seccomp, ids, outlets },
    helper: slotHelper,
    prefix: `paws-${instance}-`,
    pids: MOST_PIDS,
    cgroups: await openCgroups(),
    disks: await openDisks(ids, { file: join(dataDir, `${instance}.ext4`), sizeMB: diskMB }),
  }
}

/** The slot helper looks for names from the data folder. */
function findFrom(dataDir: string, path: string): string {
  const below = relative(dataDir, path)
  return below.startsWith('..') ? path : below
}

function hosts(hostname: string): string {
  return `127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n127.0.1.1 ${hostname}\n`
}

async function findProgram(name: string, debianPackage: string): Promise<string> {
  for (const folder of ['/usr/local/bin', '/usr/bin', '/bin']) {
    const path = join(folder, name)
    const runs = await access(path, constants.X_OK).then(
      () => true,
      () => false,
    )
    if (runs) return path
  }
  throw new Error(`${name} is missing, and sandboxes need it. Install Debian's package ${debianPackage}.`)
}
