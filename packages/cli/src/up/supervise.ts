import { type ChildProcess, spawn } from 'node:child_process'
import { setTimeout as sleep } from 'node:timers/promises'

/** One process that is kept running. */
export interface Service {
  name: string
  /** Starts it and resolves when it is of use; rejects with the reason when it can't be */
  start(): Promise<Running>
}

export interface Running {
  pid: number
  /** Settles when the process has ended, wanted or not */
  exited: Promise<unknown>
  /** Asks it to end. Asked again, it hurries */
  stop(): Promise<void>
  /** Ends it at once, losing nothing that was acknowledged */
  kill(): void
}

export interface Supervised {
  name: string
  pid(): number
  /** Resolves when it has ended and will not be started again */
  stop(): Promise<void>
  kill(): void
}

export interface SuperviseOptions {
  /** Told of each restart and why; `waitMs` is the pause before it */
  onRestart(name: string, waitMs: number, error?: unknown): void
  /** Told whenever it runs again, with another process id */
  onStart?(): Promise<void>
  /** First pause before a restart; it doubles up to half a minute, and starts again after a minute of good running */
  backoffMs?: number
}

const longestBackoffMs = 30_000
const goodRunMs = 60_000

/** Starts a service, and starts it again whenever it ends unasked. */
export async function supervise(service: Service, options: SuperviseOptions): Promise<Supervised> {
  const firstBackoffMs = options.backoffMs ?? 200
  const stopping = new AbortController()
  let running = await service.start()
  let ended = false
  let killed = false
  const keep = async () => {
    let backoffMs = firstBackoffMs
    for (;;) {
      const began = performance.now()
      await running.exited
      if (stopping.signal.aborted) return
      if (performance.now() - began > goodRunMs) backoffMs = firstBackoffMs
      let error: unknown
      do {
        options.onRestart(service.name, backoffMs, error)
        await sleep(backoffMs, undefined, { signal: stopping.signal }).catch(() => undefined)
        if (stopping.signal.aborted) return
        backoffMs = Math.min(backoffMs * 2, longestBackoffMs)
        error = await service.start().then(
          (again) => {
            running = again
          },
          (reason: unknown) => reason ?? new Error('It did not start'),
        )
      } while (error)
      await options.onStart?.()
      // Asked to stop while it was starting.
      if (killed) running.kill()
      if (stopping.signal.aborted) await running.stop()
    }
  }
  const kept = keep().finally(() => {
    ended = true
  })
  return {
    name: service.name,
    pid: () => running.pid,
    async stop() {
      stopping.abort()
      if (!ended) await running.stop()
      await kept
    },
    kill() {
      stopping.abort()
      killed = true
      if (!ended) running.kill()
    },
  }
}

export interface NodeService {
  /** Path of the program */
  main: string
  env: NodeJS.ProcessEnv
  /** Open descriptor for what it says */
  log: number
}

/** Starts one of our own programs. The kernel asks it to end when this process dies, even by kill -9. */
export async function startNode({ main, env, log }: NodeService): Promise<Running> {
  const child = spawn('setpriv', ['--pdeathsig=TERM', '--', process.execPath, main], {
    env,
    // A session of its own: Ctrl-C in the terminal is answered here, in order, not by all at once.
    detached: true,
    stdio: ['ignore', log, log],
  })
  await new Promise((done, failed) => child.once('spawn', done).once('error', failed))
  const exited = new Promise<void>((done) => child.once('exit', () => done()))
  return {
    pid: child.pid as number,
    exited,
    async stop() {
      signal(child, 'SIGTERM')
      await exited
    },
    kill: () => signal(child, 'SIGKILL'),
  }
}

function signal(child: ChildProcess, name: NodeJS.Signals): void {
  if (child.exitCode === null && child.signalCode === null) child.kill(name)
}
