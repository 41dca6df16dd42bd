import { createHash } from 'node:crypto'
import { mkdir, readFile, realpath, rm, statfs } from 'node:fs/promises'
import { availableParallelism, totalmem } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { pino } from 'pino'
import { openBuilds } from './builds/index.ts'
import { fetchFile } from './builds/transfer.ts'
import { Closers } from './closers.ts'
import { type Config, readConfig } from './config.ts'
import { openClaims, openPlaces } from './link/claims.ts'
import { openLink } from './link/client.ts'
import { enrol } from './link/enrol.ts'
import { openHeartbeat, type WorkerState } from './link/heartbeat.ts'
import { openJournals } from './link/journal.ts'
import { openTunnel } from './link/tunnel.ts'
import type { Driver } from './sandbox/driver.ts'
import { createProcessDriver } from './sandbox/process.ts'
import { openSessions } from './sessions/index.ts'
import { serveSessions } from './sessions/tunnel.ts'
import { openSnapshotStore } from './snapshots/index.ts'

const templatesDir = fileURLToPath(new URL('../../../snapshots', import.meta.url))
/** Disk of a session that asks for none: slots with such a one are made ahead */
const usualDiskMB = 10_240

const drivers: Record<Config['driver'], (config: Config) => Promise<Driver>> = {
  auto: processDriver,
  process: processDriver,
}

const config = readConfig()
const log = pino({ level: config.logLevel, base: { worker: config.name } })
const closers = new Closers()
try {
  await serve(config)
} catch (error) {
  log.fatal({ err: error }, error instanceof Error ? error.message : 'The worker failed')
  process.exitCode = 1
} finally {
  await closers.close().catch((error: unknown) => {
    log.error({ err: error }, 'Not everything could be closed')
    process.exitCode = 1
  })
}

/** Opens everything and resolves when the worker shall end; what was opened is closed after that, in reverse. */
async function serve(config: Config): Promise<void> {
  const signals = catchSignals()
  const { url, dataDir } = config
  await mkdir(dataDir, { recursive: true, mode: 0o711 })
  const spoolDir = join(dataDir, 'spool')
  await rm(spoolDir, { recursive: true, force: true })
  await mkdir(spoolDir, { mode: 0o700 })

  const driver = closers.add(await drivers[config.driver](config))
  const describe = await describeHost(config, driver)
  const identity = await enrol({ ...config, token: config.enrolmentToken, state: () => describe([]) })
  const { credential } = identity
  const link = closers.add(openLink({ url, credential }))
  const store = closers.add(await openSnapshotStore({ dataDir, fetchFile: fetchFile(link), log }))
  const heartbeat = closers.add(openHeartbeat({ link, log, state: async () => describe(await store.held()) }))
  const places = { sessions: openPlaces(config.maxSessions), builds: openPlaces(1) }
  const journals = await openJournals(join(dataDir, 'journal'))
  const shared = { link, log, heartbeat }
  const builds = closers.add(openBuilds({ ...shared, store, templatesDir, places: places.builds }))
  const sessions = closers.add(openSessions({ ...shared, driver, snapshots: store, journals, places: places.sessions }))
  closers.add(openTunnel({ url, credential, log, serve: serveSessions({ sessions, spoolDir, log }) }))
  await sessions.recover()
  const claims = closers.add(
    openClaims({
      ...{ link, log, ...places },
      begin: (claim) => (claim.kind === 'session' ? sessions.begin(claim) : builds.begin(claim)),
    }),
  )
  heartbeat.onDraining(() => claims.pause(heartbeat.draining))
  log.info({ name: identity.name, isolation: driver.isolation, maxSessions: config.maxSessions }, 'The worker is ready')

  const why = await Promise.race([signals.first, heartbeat.revoked])
  if (why instanceof Error) {
    throw new Error('The control plane no longer knows this worker. Enrol it again with a new token.', { cause: why })
  }
  log.info({ signal: why, drainMs: config.drainMs }, 'Stopping: no more work is taken, what runs may end')
  await claims.close()
  await Promise.race([sessions.idle(), signals.second(config.drainMs)])
}

async function processDriver({ dataDir, guestAgent, slotHelper, slots }: Config): Promise<Driver> {
  const instance = createHash('sha256')
    .update(await realpath(dataDir))
    .digest('hex')
    .slice(0, 8)
  return createProcessDriver({ dataDir, guestAgent, slotHelper, instance, slots, diskMB: usualDiskMB, log })
}

async function describeHost({ dataDir, maxSessions }: Config, { isolation, limitations }: Driver) {
  const { version } = JSON.parse(await readFile(new URL('../package.json', import.meta.url), 'utf8')) as {
    version: string
  }
  return async (snapshots: string[]): Promise<WorkerState> => {
    const { blocks, bsize } = await statfs(dataDir)
    const resources = {
      vcpus: availableParallelism(),
      memoryMB: Math.floor(Math.min(process.constrainedMemory() || totalmem(), totalmem()) / 1024 ** 2),
      diskMB: Math.floor((blocks * bsize) / 1024 ** 2),
    }
    return { version, isolation, limitations, maxSessions, resources, snapshots }
  }
}

/** The first signal to end, and the second, which hurries. */
function catchSignals() {
  const came: ((signal: string) => void)[] = []
  const next = () => new Promise<string>((resolve) => came.push(resolve))
  const first = next()
  for (const name of ['SIGTERM', 'SIGINT', 'SIGHUP'] as const) process.on(name, () => came.shift()?.(name))
  return {
    first,
    /** Resolves with the next signal, or after so long */
    second: (afterMs: number) =>
      Promise.race([next(), new Promise<void>((resolve) => setTimeout(resolve, afterMs).unref())]),
  }
}
