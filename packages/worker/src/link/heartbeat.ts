import { setTimeout as sleep } from 'node:timers/promises'
import type { Logger } from 'pino'
import { type Answer, type CallOptions, type Link, LinkError } from './client.ts'

export type WorkerState = CallOptions<'heartbeat'>['body']['state']

/** One piece of work that this worker holds a lease of, from its claim until its report is acknowledged. */
export interface Lease {
  kind: 'session' | 'build'
  id: string
  fence: number
  /** From the moment of `hold`, in milliseconds */
  leaseMs: number
  /** The lease is another's: stop, report nothing */
  onLost(): void
  /** A user has cancelled it: stop and report */
  onCancel(): void
  /** The control plane was not reached for so long that the lease will soon be given away: stop before that */
  onOutOfContact(): void
}

export interface Heartbeat {
  /** Renews the lease until the returned function is called. */
  hold(lease: Lease): () => void
  /** Whether the operator wants no more work to begin here */
  readonly draining: boolean
  /** Resolves when the control plane no longer knows this worker's credential */
  readonly revoked: Promise<LinkError>
  /** Told after each change of `draining` */
  onDraining(listener: () => void): void
  close(): Promise<void>
}

export interface HeartbeatOptions {
  link: Link
  log: Logger
  /** What this worker is now; asked before each beat */
  state: () => Promise<WorkerState>
}

/** Longest time between two beats */
const longestMs = 10_000

interface Held extends Lease {
  timer?: NodeJS.Timeout
}

/** Renews the leases of what runs here, and stops what can't be renewed before it could be given to another. */
export function openHeartbeat({ link, log, state }: HeartbeatOptions): Heartbeat {
  const held = new Set<Held>()
  const closing = new AbortController()
  const { promise: revoked, resolve: revoke } = Promise.withResolvers<LinkError>()
  const drainListeners: (() => void)[] = []
  let draining = false
  let wake = new AbortController()

  const everyMs = () => Math.min(longestMs, ...[...held].map(({ leaseMs }) => leaseMs / 6))

  // Timers count by the monotonic clock: setting the host's clock neither stops nor prolongs anything.
  function renew(lease: Held, leaseMs: number, sinceMs: number) {
    clearTimeout(lease.timer)
    lease.leaseMs = leaseMs
    const inMs = leaseMs - marginMs(leaseMs) - (performance.now() - sinceMs)
    lease.timer = setTimeout(() => lease.onOutOfContact(), inMs)
  }

  async function beat() {
    const now = await state()
    const asked = [...held]
    const sentAt = performance.now()
    const answer = await link.call('heartbeat', {
      body: { state: now, held: asked.map(({ kind, id, fence }) => ({ kind, id, fence })) },
      // An answer that takes longer than the pause is worth less than a new question.
      timeoutMs: Math.max(1_000, everyMs()),
      signal: closing.signal,
    })
    heed(asked, answer, sentAt)
  }

  function heed(asked: Held[], answer: Answer<'heartbeat'>, sentAt: number) {
    const lost = new Set(answer.lost)
    const cancelled = new Set(answer.cancel)
    for (const lease of asked) {
      if (!held.has(lease)) continue
      if (lost.has(lease.id)) lease.onLost()
      // From when the question left: the answer may have been long under way.
      else renew(lease, answer.leaseMs, sentAt)
      if (cancelled.has(lease.id)) lease.onCancel()
    }
    if (answer.draining === draining) return
    draining = answer.draining
    for (const listener of drainListeners) listener()
  }

  async function run() {
    for (let failures = 0; !closing.signal.aborted; ) {
      wake = new AbortController()
      try {
        await beat()
        if (failures > 3) log.info('The control plane answers again')
        failures = 0
      } catch (error) {
        if (closing.signal.aborted) return
        if (error instanceof LinkError && error.status === 401) revoke(error)
        if (++failures === 3) log.warn({ err: error }, 'The control plane does not answer; trying on')
      }
      const pauseMs = failures > 0 ? Math.min(everyMs(), 1_000) : everyMs()
      const signal = AbortSignal.any([wake.signal, closing.signal])
      // Woken early: there is something new to say, or it closes.
      await sleep(pauseMs, undefined, { signal }).catch(() => undefined)
    }
  }
  const running = run()

  return {
    hold(lease) {
      const item: Held = { ...lease }
      const faster = lease.leaseMs / 6 < everyMs()
      held.add(item)
      renew(item, lease.leaseMs, performance.now())
      if (faster) wake.abort()
      return () => {
        clearTimeout(item.timer)
        held.delete(item)
      }
    },
    get draining() {
      return draining
    },
    revoked,
    onDraining: (listener) => void drainListeners.push(listener),
    async close() {
      closing.abort()
      for (const { timer } of held) clearTimeout(timer)
      await running
    },
  }
}

/** Before the end of a lease that can't be renewed: time enough to stop what runs under it. */
export function marginMs(leaseMs: number): number {
  return Math.min(15_000, leaseMs / 4)
}
