import { createHash } from 'node:crypto'
import { mkdir, realpath, rm, statfs } from 'node:fs/promises'
import { availableParallelism } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { type Logger, pino } from 'pino'
import manifest from '../package.json' with { type: 'json' }
import { openBuilds } from './builds/index.ts'
import { fetchFile } from './builds/transfer.ts'
import { type Config, readConfig } from './config.ts'
import { openEgress } from './egress/index.ts'
import { lockFolder } from './folder-lock.ts'
import { type ClaimsOptions, openClaims, openPlaces } from './link/claims.ts'
import { openLink } from './link/client.ts'
import { enrol, type Identity } from './link/enrol.ts'
import { openHeartbeat, type WorkerState } from './link/heartbeat.ts'
import { openJournals } from './link/journal.ts'
import { openTunnel } from './link/tunnel.ts'
import type { Driver, Isolation } from './sandbox/driver.ts'
import type { Outlets } from './sandbox/outlet.ts'
import { createProcessDriver } from './sandbox/process.ts'
import { usableMemoryMB } from './sandbox/usable-memory.ts'
import { openSessions } from './sessions/index.ts'
import { serveSessions } from './sessions/serve.ts'
import { openSnapshotStore } from './snapshots/index.ts'

const templatesDir = fileURLToPath(new URL('../../../snapshots', import.meta.url))
/** Disk of a session that asks for none: slots with such a one are made ahead */
const usualDiskMB = 10_240

/** A worker that takes work. */
export interface Worker {
  identity: Identity
  isolation: Isolation
  /** Resolves when the control plane no longer knows this worker */
  revoked: Promise<Error>
  /** Takes no more work. Resolves when what runs has ended by itself and is reported */
  drain(): Promise<void>
  /** Ends what still runs, reports that, and gives back everything */
  close(): Promise<void>
}

/** Opens everything a worker is made of and begins to ask for work. */
export async function startWorker(config: Config, log: Logger): Promise<Worker> {
  // Closes what is open if the rest can't be opened.
  await using opening = new AsyncDisposableStack()
  const worker = await open(config, log, opening)
  const opened = opening.move()
  return { ...worker, close: () => opened.disposeAsync() }
}

async function close(opened: { close: () => unknown }): Promise<void> {
  await opened.close()
}

async function open(config: Config, log: Logger, opening: AsyncDisposableStack): Promise<Omit<Worker, 'close'>> {
  const { url, dataDir, maxSessions } = config
  const spoolDir = join(dataDir, 'spool')
  await mkdir(dataDir, { recursive: true, mode: 0o711 })
  opening.adopt(await lockFolder(dataDir), close)
  await rm(spoolDir, { recursive: true, force: true })
  await mkdir(spoolDir, { mode: 0o700 })

  const outlets = opening.adopt(startEgress(config, log), close)
  const driver = opening.adopt(await drivers[config.driver](config, outlets, log), close)
  const describe = describeHost(config, driver)
  const identity = await enrol({ ...config, token: config.enrolmentToken, state: () => describe([]) })
  const { credential } = identity
  const link = opening.adopt(openLink({ url, credential }), close)
  const store = opening.adopt(await openSnapshotStore({ dataDir, fetchFile: fetchFile(link), log }), close)
  const heartbeat = opening.adopt(openHeartbeat({ link, log, state: async () => describe(await store.held()) }), close)
  const shared = { link, log, heartbeat }
  const places = { sessions: openPlaces(maxSessions), builds: openPlaces(1) }
  const builds = opening.adopt(openBuilds({ ...shared, driver, store, templatesDir, places: places.builds }), close)
  const journals = await openJournals(join(dataDir, 'journal'))
  const sessions = opening.adopt(
    openSessions({ ...shared, driver, snapshots: store, journals, places: places.sessions }),
    close,
  )
  opening.adopt(openTunnel({ url, credential, log, serve: serveSessions({ sessions, spoolDir, log }) }), close)
  await sessions.recover()
  const begin: ClaimsOptions['begin'] = (claim) =>
    claim.kind === 'session' ? sessions.begin(claim) : builds.begin(claim)
  const claims = opening.adopt(openClaims({ link, log, ...places, begin }), close)
  heartbeat.onDraining(() => claims.pause(heartbeat.draining))
  log.info({ name: identity.name, isolation: driver.isolation, maxSessions }, 'The worker is ready')
  return {
    identity,
    isolation: driver.isolation,
    revoked: heartbeat.revoked,
    async drain() {
      await claims.close()
      await sessions.idle()
    },
  }
}

/** The egress process starts while the driver prepares itself; slots wait for it, and tell why it did not. */
function startEgress(config: Config, log: Logger): Outlets & { close(): Promise<void> } {
  const egress = openEgress({ slotHelper: config.slotHelper, ...config.egress, log })
  const opened = egress.catch(() => undefined)
  return {
    open: async (network) => (await egress).open(network),
    close: async () => (await opened)?.close(),
  }
}

const drivers: Record<Config['driver'], (config: Config, outlets: Outlets, log: Logger) => Promise<Driver>> = {
  auto: processDriver,
  process: processDriver,
}

async function processDriver(config: Config, outlets: Outlets, log: Logger): Promise<Driver> {
  const { dataDir, guestAgent, slotHelper, slots } = config
  const instance = createHash('sha256')
    .update(await realpath(dataDir))
    .digest('hex')
    .slice(0, 8)
  const programs = { guestAgent, slotHelper }
  return createProcessDriver({ ...programs, dataDir, instance, slots, diskMB: usualDiskMB, outlets, log })
}

function describeHost({ dataDir, maxSessions }: Config, { isolation, limitations }: Driver) {
  return async (snapshots: string[]): Promise<WorkerState> => {
    const { blocks, bsize } = await statfs(dataDir)
    const resources = {
      vcpus: availableParallelism(),
      memoryMB: await usableMemoryMB(),
      diskMB: Math.floor((blocks * bsize) / 1024 ** 2),
    }
    return { version: manifest.version, isolation, limitations, maxSessions, resources, snapshots }
  }
}

/**
 * Runs as a process of its own. The first SIGTERM takes no more work and lets sessions run on for a while; a second
 * one ends them at once.
 */
async function main(): Promise<void> {
  const config = readConfig()
  const log = pino({ level: config.logLevel, base: { process: 'worker' } })
  const signals = catchSignals()
  const worker = await startWorker(config, log)
  const why = await Promise.race([signals.first, worker.revoked])
  if (typeof why === 'string') {
    log.info({ signal: why, drainMs: config.drainMs }, 'Stopping: no more work is taken, what runs may end')
    await Promise.race([worker.drain(), signals.second(config.drainMs)])
  }
  await worker.close()
  if (typeof why === 'string') return
  throw new Error('The control plane no longer knows this worker. Enrol it again with a new token.', { cause: why })
}

/** The first signal to end, and the second, which hurries. */
function catchSignals() {
  const awaited: ((signal: string) => void)[] = []
  const next = () => new Promise<string>((resolve) => awaited.push(resolve))
  const first = next()
  for (const name of ['SIGTERM', 'SIGINT', 'SIGHUP'] as const) process.on(name, () => awaited.shift()?.(name))
  return {
    first,
    /** Resolves with the next signal, or after so long */
    second: (afterMs: number) =>
      Promise.race([next(), new Promise<void>((resolve) => setTimeout(resolve, afterMs).unref())]),
  }
}

if (import.meta.main) {
  main().then(
    () => process.exit(0),
    (error: unknown) => {
      process.stderr.write(`The worker ended: ${error instanceof Error ? error.message : String(error)}\n`)
      process.exit(1)
    },
  )
}
