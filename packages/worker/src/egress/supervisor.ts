import { setTimeout as sleep } from 'node:timers/promises'
import type { Logger } from 'pino'
import type { Configure, FromEgress } from './messages.ts'
import { EgressEnded, type EgressProcess, startProcess } from './process.ts'

export interface SupervisorOptions {
  configure: Configure
  onMessage: (message: FromEgress, from: EgressProcess) => void
  /** Tells a new process all that the one before it knew; it never rejects */
  handOver: (to: EgressProcess) => Promise<void>
  log: Logger
}

/** Keeps one egress process running. */
export interface Supervisor {
  readonly running: EgressProcess
  /**
   * Has something done with the process there is, and again with the next one when that ends before it is done.
   *
   * @throws what `act` throws, unless that is EgressEnded
   */
  ask(act: (process: EgressProcess) => Promise<void>): Promise<void>
  close(): Promise<void>
}

/** A process that ends sooner than this may have something wrong with it: the next ones are started ever later. */
const soundMs = 10_000
const longestWaitMs = 5_000

/** @throws when the first one does not start */
export async function openSupervisor({ configure, onMessage, handOver, log }: SupervisorOptions): Promise<Supervisor> {
  let closing = false
  let shortLives = 0
  const start = () => startProcess({ configure, onMessage, log })
  let running = start()
  let current = prepare(running)
  await current.catch((cause: unknown) => {
    throw new Error("Sandboxes' way out can not be opened: the egress process did not start", { cause })
  })
  watch(running)

  async function prepare(child: EgressProcess): Promise<EgressProcess> {
    await child.answer(({ type }) => type === 'ready')
    await handOver(child)
    return child
  }

  function watch(child: EgressProcess) {
    const began = performance.now()
    void child.ended.then((why) => {
      if (closing) return
      log.error({ why, pid: child.pid }, 'The egress process ended: open connections of sandboxes broke')
      shortLives = performance.now() - began > soundMs ? 0 : shortLives + 1
      restart()
    })
  }

  function restart() {
    const waitMs = shortLives < 2 ? 0 : Math.min(longestWaitMs, 50 * 2 ** (shortLives - 2))
    current = sleep(waitMs).then(() => {
      if (closing) throw new EgressEnded('The worker is closing.')
      running = start()
      watch(running)
      return prepare(running)
    })
    // Whoever waits for it hears of a failure, and its end starts another one.
    current.catch(() => undefined)
  }

  return {
    get running() {
      return running
    },
    async ask(act) {
      while (!closing) {
        try {
          const child = await current
          await act(child)
          if (!child.dead) return
        } catch (error) {
          if (!(error instanceof EgressEnded)) throw error
          // Its end is about to be noticed, and another one started.
          await sleep(1)
        }
      }
      throw new Error('Nothing can leave a sandbox any more: the worker is closing.')
    },
    async close() {
      closing = true
      await current.catch(() => undefined)
      running.kill()
      await running.ended
    },
  }
}
