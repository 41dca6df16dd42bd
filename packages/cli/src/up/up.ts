import { mkdir, readFile } from 'node:fs/promises'
import { createClient, type PawsClient } from '@paws/sdk'
import { type CliConfig, type Credentials, readCredentials } from '../config.ts'
import { writePrivately } from '../private-file.ts'
import { ensureSnapshot, sayHello } from './first-session.ts'
import { makeDataFolder } from './folder.ts'
import { endLeftovers, markProcess } from './leftovers.ts'
import { type FolderLock, lockFolder } from './lock.ts'
import { controlPlaneService, findPort, foldersOf, postgresService, workerService } from './services.ts'
import { createSteps, type Steps } from './steps.ts'
import { type Service, type Supervised, supervise } from './supervise.ts'

export interface Installation extends Credentials {
  /** What this host can't enforce */
  limitations: string[]
  isolation: string
}

export interface UpOptions {
  /** Told once everything works */
  onReady(installation: Installation): void
  /** The first abort stops everything in order, waiting for what runs */
  stop: AbortSignal
  /** The second hurries, the third kills */
  hurry: EventTarget
}

/**
 * Starts PostgreSQL, a control plane and a worker, keeps them running, and stops them in reverse when told.
 * Resolves when nothing is left.
 */
export async function up(config: CliConfig, options: UpOptions): Promise<void> {
  const steps = createSteps()
  const { dataDir } = config
  const folders = foldersOf(dataDir)
  // As root others must get through it: PostgreSQL's user, and the ids that sandboxes have outside.
  await makeDataFolder(dataDir, process.getuid?.() === 0 ? 0o711 : 0o700)
  await mkdir(folders.logs, { recursive: true, mode: 0o700 })
  const lock = await lockFolder(dataDir)
  const running: Supervised[] = []
  try {
    if (lock.before) await steps.step('What a killed run has left', () => endLeftovers(lock.before?.children ?? []))
    const installation = await bring(config, { lock, running, steps, signal: options.stop })
    options.onReady(installation)
    await aborted(options.stop)
  } catch (error) {
    // Ctrl-C while it starts is no failure.
    if (!options.stop.aborted) throw error
  } finally {
    if (running.length > 0) await steps.step('Stop', (show) => stopAll(running, options.hurry, show))
    await lock.release()
  }
}

interface Bringing {
  lock: FolderLock
  running: Supervised[]
  steps: Steps
  signal: AbortSignal
}

async function bring(config: CliConfig, { lock, running, steps, signal }: Bringing): Promise<Installation> {
  const port = await findPort(config.host, config.port)
  const url = `http://127.0.0.1:${port}`
  const options = { config, url, signal }
  const announce = async () => {
    const marks = await Promise.all(running.map(({ name, pid }) => markProcess(name, pid())))
    await lock.announce({ pid: process.pid, url, children: marks.filter((mark) => mark !== undefined) })
  }
  const start = async (service: Service) => {
    signal.throwIfAborted()
    const restarts = {
      onStart: announce,
      onRestart: (name: string, waitMs: number, error?: unknown) =>
        steps.say(`! ${name} has ended unasked; started again in ${waitMs} ms${error ? `: ${messageOf(error)}` : ''}`),
    }
    running.push(await steps.step(service.name, () => supervise(service, restarts)))
    await announce()
  }

  let databaseUrl = config.databaseUrl ?? ''
  const setDatabaseUrl = (found: string) => {
    databaseUrl = found
  }
  await announce()
  if (!config.databaseUrl) await start(postgresService(options, setDatabaseUrl))
  await start(controlPlaneService(options, () => databaseUrl))
  const apiKey = await keepKey(config, url)
  const client = createClient({ url, apiKey })
  await writeEnrolmentToken(client, config)
  await start(workerService(options, apiKey))
  await ensureSnapshot(client, steps, signal)
  await sayHello(client, steps, signal)
  const [worker] = await client.fleet.workers()
  return { url, apiKey, isolation: worker?.isolation ?? 'none', limitations: worker?.limitations ?? [] }
}

/** The key that the control plane wrote at its very first start, kept with the URL where the command line finds it. */
async function keepKey(config: CliConfig, url: string): Promise<string> {
  const { bootstrapKey } = foldersOf(config.dataDir)
  const written = await readFile(bootstrapKey, 'utf8').catch(() => undefined)
  const apiKey = written?.trim() ?? config.apiKey ?? readCredentials(config.installFile)?.apiKey
  if (!apiKey) {
    throw new Error(
      'This database already has its first organization, and its key was written elsewhere. ' +
        'Set PAWS_KEY to a key of that organization with the scope fleet:admin.',
    )
  }
  await writePrivately(config.installFile, `${JSON.stringify({ url, apiKey })}\n`)
  return apiKey
}

// A fresh one each time: used only by a worker that isn't enrolled yet, and worthless after that or after an hour.
async function writeEnrolmentToken(client: PawsClient, config: CliConfig): Promise<void> {
  const { token } = await client.fleet.createEnrolmentToken({})
  await writePrivately(foldersOf(config.dataDir).enrolmentToken, `${token}\n`)
}

/** Worker first, so that its last reports are taken; the database last. */
async function stopAll(running: Supervised[], hurry: EventTarget, show: (text: string) => void): Promise<void> {
  const order = [...running].reverse()
  let current = 0
  let hurried = 0
  const onHurry = () => {
    hurried += 1
    const service = order[current]
    if (hurried > 1) service?.kill()
    else void service?.stop()
  }
  hurry.addEventListener('hurry', onHurry)
  try {
    for (; current < order.length; current++) {
      const service = order[current] as Supervised
      show(`${service.name}; running sessions are waited for, Ctrl-C again hurries`)
      if (hurried > 1) service.kill()
      await service.stop()
    }
  } finally {
    hurry.removeEventListener('hurry', onHurry)
  }
}

function aborted(signal: AbortSignal): Promise<void> {
  return new Promise((done) => {
    if (signal.aborted) done()
    else signal.addEventListener('abort', () => done(), { once: true })
  })
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error)
}
