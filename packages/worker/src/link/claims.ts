import { setTimeout as sleep } from 'node:timers/promises'
import type { Logger } from 'pino'
import { type Answer, backoffMs, type Link } from './client.ts'

type Claim = Answer<'claim'>['claims'][number]
export type SessionClaim = Extract<Claim, { kind: 'session' }>
export type BuildClaim = Extract<Claim, { kind: 'build' }>

/** Places for one kind of work. */
export interface Places {
  readonly free: number
  /** Takes one, until the returned function is called */
  take(): () => void
  /** Resolves when one is free, or the signal aborts */
  untilFree(signal: AbortSignal): Promise<void>
}

export function openPlaces(size: number): Places {
  let free = size
  const waiting = new Set<() => void>()
  return {
    get free() {
      return free
    },
    take() {
      free--
      let taken = true
      return () => {
        if (!taken) return
        taken = false
        free++
        for (const wake of waiting) wake()
      }
    },
    async untilFree(signal) {
      if (free > 0 || signal.aborted) return
      const { promise, resolve } = Promise.withResolvers<void>()
      const wake = () => resolve()
      waiting.add(wake)
      signal.addEventListener('abort', wake)
      await promise
      waiting.delete(wake)
      signal.removeEventListener('abort', wake)
    },
  }
}

export interface ClaimsOptions {
  link: Link
  log: Logger
  sessions: Places
  builds: Places
  /** Begins what was claimed. Must take its place before it returns, and never throws */
  begin(claim: Claim): void
  /** How long a question may wait at the control plane; 25 s */
  waitMs?: number
}

export interface Claims {
  /** Asks for no more work, or again. What was asked already may still come */
  pause(paused: boolean): void
  close(): Promise<void>
}

/**
 * Asks for work while there is a free place, with one question always open. Sessions and builds are asked for
 * apart: a question that is open is never taken back, since its answer might be on its way.
 */
export function openClaims(options: ClaimsOptions): Claims {
  const { link, log, begin, waitMs = 25_000 } = options
  const closing = new AbortController()
  const { signal } = closing
  let resume = Promise.resolve()
  let unpause: (() => void) | undefined
  const closed = new Promise<void>((resolve) => signal.addEventListener('abort', () => resolve(), { once: true }))

  async function ask(kind: 'sessions' | 'builds') {
    for (let failures = 0; !signal.aborted; ) {
      await Promise.race([resume, closed])
      await options[kind].untilFree(signal)
      if (signal.aborted) return
      try {
        const body = { sessions: 0, builds: 0, waitMs, [kind]: options[kind].free }
        const { claims } = await link.call('claim', { body, signal, timeoutMs: waitMs + 15_000 })
        for (const claim of claims) begin(claim)
        failures = 0
      } catch (error) {
        if (signal.aborted) return
        if (++failures === 3) log.warn({ err: error }, 'Asking for work keeps failing; trying on')
        // Closing ends the wait, and the loop sees it.
        await sleep(backoffMs(failures), undefined, { signal }).catch(() => undefined)
      }
    }
  }
  const asking = Promise.all([ask('sessions'), ask('builds')])

  return {
    pause(paused) {
      if (paused && !unpause) {
        const { promise, resolve } = Promise.withResolvers<void>()
        resume = promise
        unpause = resolve
      } else if (!paused) {
        unpause?.()
        unpause = undefined
      }
    },
    async close() {
      closing.abort()
      await asking
    },
  }
}
