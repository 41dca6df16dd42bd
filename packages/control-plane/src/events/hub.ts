import { type RawBuilder, sql } from 'kysely'
import pg from 'pg'
import type { Logger } from 'pino'
import type { Database } from '../database/index.ts'

/** PostgreSQL's channel; ours are names within its payloads, so that one LISTEN serves them all. */
const wire = 'paws'
const retryMs = { first: 50, most: 2000 }
/** A connection that died without a word is noticed by this. */
const probe = { everyMs: 10_000, timeoutMs: 5000 }

/** Wake-ups of one channel, from when it was made: one that comes between two waits ends the next at once. */
export interface Subscription {
  /** @returns whether it was woken (true), or the time passed or the signal aborted (false) */
  wait(timeoutMs: number, signal?: AbortSignal): Promise<boolean>
  close(): void
}

/** Who is told that something was committed. Wake-ups may come too often, never too seldom. */
export interface Events {
  /** To wait without missing: subscribe, then read the database, then wait, and read again. */
  subscribe(channel: string): Subscription
  /**
   * Calls the listener with each payload, and with null whenever some may have been missed.
   *
   * @returns what ends it
   */
  listen(channel: string, listener: (payload: string | null) => void): () => void
  /** Whether wake-ups are coming now; while not, nothing that relies on them may be cached */
  connected(): boolean
  close(): Promise<void>
}

/** Tells every control plane, once the transaction is committed. The payload is at most some 7000 bytes. */
export async function notify(db: Database, channel: string, payload = ''): Promise<void> {
  await sql`select ${notification(channel, payload)}`.execute(db)
}

/** The same as a part of a larger statement, which saves a round trip; the channel may be an expression there. */
export function notification(channel: string | RawBuilder<unknown>, payload = ''): RawBuilder<unknown> {
  return sql`pg_notify(${wire}, ${channel}::text || ' ' || ${payload}::text)`
}

type Listener = (payload: string | null) => void

/** Opens this process's one LISTEN connection; it connects again by itself and then wakes everybody. */
export async function openEvents(url: string, log: Logger): Promise<Events> {
  const listeners = new Map<string, Set<Listener>>()
  let client: pg.Client | null = null
  let closed = false
  let waitMs = retryMs.first
  let timer: NodeJS.Timeout | undefined

  function dispatch(message: string) {
    const space = message.indexOf(' ')
    for (const listener of [...(listeners.get(message.slice(0, space)) ?? [])]) listener(message.slice(space + 1))
  }
  function wakeAll() {
    for (const set of [...listeners.values()]) for (const listener of [...set]) listener(null)
  }

  async function connect(): Promise<void> {
    const next = new pg.Client({
      connectionString: url,
      keepAlive: true,
      connectionTimeoutMillis: 5000,
      query_timeout: probe.timeoutMs,
      application_name: 'paws events',
    })
    next.on('error', (error) => lost(next, error))
    next.on('end', () => lost(next, new Error('the connection was closed')))
    next.on('notification', (message) => dispatch(message.payload ?? ''))
    try {
      await next.connect()
      await next.query(`listen ${wire}`)
    } catch (error) {
      end(next)
      throw error
    }
    if (closed) return end(next)
    client = next
    waitMs = retryMs.first
    timer = setTimeout(() => void check(next), probe.everyMs)
    wakeAll()
  }

  function lost(which: pg.Client, error: unknown) {
    if (closed || which !== client) return
    client = null
    log.warn({ err: error }, 'lost the connection for wake-ups, connecting again')
    end(which)
    wakeAll()
    schedule()
  }

  function schedule() {
    clearTimeout(timer)
    timer = setTimeout(() => {
      connect().catch((error: unknown) => {
        if (closed) return
        waitMs = Math.min(waitMs * 2, retryMs.most)
        log.warn({ err: error, againInMs: waitMs }, 'no connection for wake-ups')
        schedule()
      })
    }, waitMs)
  }

  async function check(which: pg.Client) {
    try {
      await which.query('select 1')
      if (which === client) timer = setTimeout(() => void check(which), probe.everyMs)
    } catch (error) {
      lost(which, error)
    }
  }

  function listen(channel: string, listener: Listener) {
    const set = listeners.get(channel) ?? new Set()
    listeners.set(channel, set.add(listener))
    return () => {
      set.delete(listener)
      if (set.size === 0 && listeners.get(channel) === set) listeners.delete(channel)
    }
  }

  await connect()
  return {
    listen,
    subscribe: (channel) => subscribe(listen, channel),
    connected: () => client !== null,
    async close() {
      closed = true
      clearTimeout(timer)
      wakeAll()
      await client?.end()
    },
  }
}

// What is thrown away may hang in a connection that is dead already; nothing waits for it.
function end(client: pg.Client): void {
  client.removeAllListeners('notification')
  client.end().catch(() => undefined)
}

function subscribe(listen: Events['listen'], channel: string): Subscription {
  let woken = false
  let wake: (() => void) | null = null
  const stop = listen(channel, () => {
    woken = true
    wake?.()
  })
  return {
    close: stop,
    wait(timeoutMs, signal) {
      return new Promise((resolve) => {
        const settle = () => {
          clearTimeout(timer)
          signal?.removeEventListener('abort', settle)
          wake = null
          const answer = woken
          woken = false
          resolve(answer)
        }
        const timer = setTimeout(settle, timeoutMs)
        wake = settle
        if (woken || signal?.aborted) settle()
        else signal?.addEventListener('abort', settle)
      })
    },
  }
}
