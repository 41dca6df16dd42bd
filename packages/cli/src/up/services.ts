import { open, readFile, rename, stat } from 'node:fs/promises'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { createClient } from '@paws/sdk'
import { clone } from '../clone.ts'
import type { CliConfig } from '../config.ts'
import { startPostgres } from './postgres.ts'
import { type Running, type Service, startNode } from './supervise.ts'

const logLimitBytes = 10 * 1024 * 1024

/** Where each of the three processes keeps what is its own, below the data folder. */
export function foldersOf(dataDir: string) {
  return {
    postgres: join(dataDir, 'postgres'),
    controlPlane: join(dataDir, 'control-plane'),
    worker: join(dataDir, 'worker'),
    logs: join(dataDir, 'logs'),
    bootstrapKey: join(dataDir, 'api-key'),
    enrolmentToken: join(dataDir, 'enrolment-token'),
  }
}

export interface ServiceOptions {
  config: CliConfig
  url: string
  signal: AbortSignal
}

export function postgresService({ config }: ServiceOptions, onUrl: (url: string) => void): Service {
  const folders = foldersOf(config.dataDir)
  return {
    name: 'PostgreSQL',
    start: () =>
      withLog(folders.logs, 'postgres', async (log) => {
        const { url, pid, exited, stop } = await startPostgres({ dataDir: folders.postgres, log })
        onUrl(url)
        return { pid, exited, stop, kill: () => process.kill(pid, 'SIGQUIT') }
      }),
  }
}

export function controlPlaneService({ config, url, signal }: ServiceOptions, databaseUrl: () => string): Service {
  const folders = foldersOf(config.dataDir)
  return {
    name: 'Control plane',
    start: () =>
      withLog(folders.logs, 'control-plane', async (log) => {
        const env = {
          ...childEnvironment(config),
          DATABASE_URL: databaseUrl(),
          PORT: new URL(url).port,
          PAWS_DATA: folders.controlPlane,
          PAWS_BOOTSTRAP_KEY_FILE: folders.bootstrapKey,
        }
        const client = createClient({ url, retries: 0 })
        return untilUseful(await startNode({ main: clone.controlPlane, env, log }), () => client.ready(), signal)
      }),
  }
}

export function workerService({ config, url, signal }: ServiceOptions, apiKey: string): Service {
  const folders = foldersOf(config.dataDir)
  const client = createClient({ url, apiKey })
  return {
    name: 'Worker',
    start: () =>
      withLog(folders.logs, 'worker', async (log) => {
        const env: NodeJS.ProcessEnv = {
          ...childEnvironment(config),
          PAWS_URL: url,
          PAWS_DATA: folders.worker,
          PAWS_ENROLMENT_TOKEN_FILE: folders.enrolmentToken,
          PAWS_GUEST_AGENT: clone.guestAgent,
          PAWS_SLOT_HELPER: clone.slotHelper,
        }
        delete env.DATABASE_URL
        // Not merely some worker: an earlier one of this folder counts as healthy for a while after its end.
        const began = Date.now()
        const connected = async () => {
          const workers = await client.fleet.workers()
          if (workers.some(({ lastSeenAt }) => Date.parse(lastSeenAt) >= began)) return
          throw new Error('The worker has not been heard of yet.')
        }
        return untilUseful(await startNode({ main: clone.worker, env, log }), connected, signal)
      }),
  }
}

// The operator's settings go on to the children; what speaks for the user does not.
function childEnvironment(config: CliConfig): NodeJS.ProcessEnv {
  const env = { ...config.env }
  delete env.PAWS_KEY
  delete env.PAWS_URL
  return env
}

/** Waits until a child answers; ends it when that fails. */
async function untilUseful(running: Running, isUseful: () => Promise<unknown>, signal: AbortSignal): Promise<Running> {
  let ended = false
  void running.exited.then(() => {
    ended = true
  })
  let last: unknown
  for (const deadline = Date.now() + 60_000; Date.now() < deadline && !ended && !signal.aborted; await sleep(50)) {
    try {
      await isUseful()
      return running
    } catch (error) {
      last = error
    }
  }
  await endSoon(running)
  signal.throwIfAborted()
  throw new Error(ended ? 'It ended while it started.' : 'It was not ready after a minute.', { cause: last })
}

async function endSoon(running: Running): Promise<void> {
  const patience = new AbortController()
  const later = sleep(10_000, undefined, { signal: patience.signal }).then(
    () => running.kill(),
    () => undefined,
  )
  await running.stop()
  patience.abort()
  await later
}

async function withLog(folder: string, name: string, start: (log: number) => Promise<Running>): Promise<Running> {
  const file = join(folder, `${name}.log`)
  const { size } = await stat(file).catch(() => ({ size: 0 }))
  if (size > logLimitBytes) await rename(file, `${file}.1`)
  const handle = await open(file, 'a', 0o600)
  const { size: before } = await handle.stat()
  try {
    return await start(handle.fd)
  } catch (error) {
    const said = (await readFile(file)).subarray(before).toString('utf8').trim().split('\n').slice(-15).join('\n')
    const reason = error instanceof Error ? error.message : String(error)
    throw new Error(`${reason}${said ? `\nThe end of ${file}:\n${said}` : ''}`, { cause: error })
  } finally {
    // The child has its own copy.
    await handle.close()
  }
}

/** Addresses on which this machine's own worker and command line reach the control plane by 127.0.0.1. */
const reachable = ['127.0.0.1', 'localhost', '0.0.0.0', '::']

/**
 * The port to listen on: the one that was asked for, or a free one for 0.
 *
 * @throws when it is taken or not ours to take, or the address would keep this machine's own worker out
 */
export async function findPort(host: string, port: number): Promise<number> {
  if (!reachable.includes(host)) {
    const remedy = 'Set it to 127.0.0.1 for this machine alone or to 0.0.0.0 for all, or unset it.'
    throw new Error(`HOST is "${host}", where this machine's own worker could not reach the control plane. ${remedy}`)
  }
  const server = createServer()
  try {
    await new Promise<void>((done, failed) =>
      server.once('error', failed).listen({ host, port, exclusive: true }, done),
    )
    return (server.address() as { port: number }).port
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException
    const what = code === 'EADDRINUSE' ? 'is taken by another program' : `can't be used (${code})`
    throw new Error(`Port ${port} of ${host} ${what}. Choose another: PORT=${port + 1} ./paws up`, { cause })
  } finally {
    server.close()
  }
}
