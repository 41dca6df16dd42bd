import { join } from 'node:path'
import pino, { type Logger } from 'pino'
import { openBlobs } from './blobs/index.ts'
import { type Config, readConfig } from './config.ts'
import { type Database, migrate, openDatabase } from './database/index.ts'
import { openDeliveries } from './delivery/index.ts'
import { ApiError } from './errors.ts'
import { openEvents } from './events/index.ts'
import { openTunnels } from './fleet/index.ts'
import { forgetOldAnswers, handlers, type MountOptions, mountApi, startServer } from './http/index.ts'
import { openJobs } from './jobs/index.ts'
import { ensureFirstOrganization, openKeys, signingSecrets } from './organizations/index.ts'
import type { Services } from './services.ts'
import { getSession, startArchiving, startReaper } from './sessions/index.ts'
import { loadMasterKeys, openVault } from './vault/index.ts'

export interface ControlPlane {
  port: number
  services: Services
  /** Drains, then closes everything in reverse */
  close(): Promise<void>
}

/** Opens everything a control plane is made of and begins to serve. */
export async function startControlPlane(
  config: Config,
  log: Logger,
  options: Pick<MountOptions, 'onAnswer'> = {},
): Promise<ControlPlane> {
  // Closes what is open if the rest can't be opened.
  await using opening = new AsyncDisposableStack()
  const services = await openServices(config, log, opening)
  const stopping = new AbortController()
  const server = opening.adopt(
    await startServer({
      app: mountApi(services, { handlers, stopping: stopping.signal, ...options }),
      host: config.host,
      port: config.port,
      log,
      stop: () => stopping.abort(),
    }),
    close,
  )
  const opened = opening.move()
  return { port: server.port, services, close: () => opened.disposeAsync() }
}

async function close(opened: { close: () => unknown }): Promise<void> {
  await opened.close()
}

async function openServices(config: Config, log: Logger, opening: AsyncDisposableStack): Promise<Services> {
  const applied = await migrate(config.databaseUrl)
  if (applied.length > 0) log.info({ applied }, 'migrated the database')
  const onError = (error: Error) => log.warn({ err: error }, 'an idle database connection broke')
  const { db } = opening.adopt(await openDatabase(config.databaseUrl, { onError }), close)
  const masterKeys = await loadMasterKeys({ value: config.masterKeys, file: join(config.dataFolder, 'master.key') })
  const vault = await openVault(db, masterKeys, (keys) => log.info({ keys }, 'wrapped keys with the new master key'))
  const keyFile = config.bootstrapKeyFile ?? join(config.dataFolder, 'first.key')
  if (await ensureFirstOrganization(db, vault, keyFile))
    log.info({ keyFile }, 'made the first organization and its key')
  const events = opening.adopt(await openEvents(config.databaseUrl, log), close)
  const keys = openKeys({ db, vault, log })
  const blobs = opening.adopt(await openBlobs(config), close)
  const jobs = opening.adopt(await openJobs(config.databaseUrl, log), close)
  const deliveries = opening.adopt(
    await openDeliveries({
      db,
      jobs,
      log,
      allow: config.deliveryAllow,
      extraCa: config.extraCa,
      secrets: (orgId) => signingSecrets(db, vault, orgId),
      body: (orgId, sessionId) => callbackBody(db, orgId, sessionId),
    }),
    close,
  )
  const tunnels = opening.adopt(openTunnels({ log }), close)
  const services = { config, log, db, vault, keys, blobs, events, deliveries, jobs, tunnels }
  await startArchiving(db, blobs, jobs, log)
  opening.adopt(startReaper(db, services, { leaseMs: config.leaseMs, log }), close)
  opening.adopt(startForgetting(services), close)
  return services
}

/** The callback says what GET would answer; nothing, if the session is no more. */
async function callbackBody(db: Database, orgId: string, sessionId: string): Promise<string | undefined> {
  try {
    return JSON.stringify(await getSession(db, orgId, sessionId))
  } catch (error) {
    if (error instanceof ApiError && error.code === 'SESSION_NOT_FOUND') return undefined
    throw error
  }
}

// Any number of control planes may do it: there is nothing left to forget for the later ones.
function startForgetting({ db, log }: Services) {
  const timer = setInterval(() => {
    forgetOldAnswers({ db }).catch((error: unknown) => log.warn({ err: error }, 'could not forget old answers'))
  }, 600_000)
  return { close: () => clearInterval(timer) }
}

/** Runs as a process of its own: says where it listens in one line of JSON, drains at SIGTERM and SIGINT. */
async function main(): Promise<void> {
  const config = readConfig()
  const log = pino({ level: config.logLevel, base: { process: 'control-plane' } })
  const controlPlane = await startControlPlane(config, log)
  process.stdout.write(`${JSON.stringify({ listening: controlPlane.port })}\n`)
  let stopping = false
  const stop = (signal: NodeJS.Signals) => {
    // Who asks twice doesn't want to wait.
    if (stopping) process.exit(1)
    stopping = true
    log.info({ signal }, 'draining')
    controlPlane.close().then(
      () => process.exit(0),
      (error: unknown) => {
        log.error({ err: error }, 'did not close well')
        process.exit(1)
      },
    )
  }
  process.on('SIGTERM', stop)
  process.on('SIGINT', stop)
}

if (import.meta.main) {
  main().catch((error: unknown) => {
    process.stderr.write(`The control plane did not start: ${error instanceof Error ? error.message : String(error)}\n`)
    process.exit(1)
  })
}
