import { sql } from 'kysely'
import type { Logger } from 'pino'
import type { Database } from '../database/index.ts'
import { reapBuilds } from '../snapshots/index.ts'
import { failWaiting } from './fail-waiting.ts'
import { sessionColumns } from './session.ts'
import { type Aftermath, type LockedSession, settle } from './settle.ts'

/** Most sessions settled in one transaction. */
const batch = 100

/**
 * Fails the sessions whose lease has ended: their worker is out of contact and has stopped them by now. They are never
 * run again, since they had started.
 *
 * @returns how many
 */
export async function reapSessions(db: Database, aftermath: Aftermath): Promise<number> {
  return db.transaction().execute(async (trx) => {
    const lost: LockedSession[] = await trx
      .selectFrom('sessions')
      .select(sessionColumns)
      .select(sql<Date>`clock_timestamp()`.as('now'))
      .where('status', '=', 'running')
      .where('leaseExpiresAt', '<', sql<Date>`clock_timestamp()`)
      .orderBy('leaseExpiresAt')
      .limit(batch)
      .forUpdate()
      .skipLocked()
      .execute()
    for (const session of lost) {
      const message = `Worker ${session.workerName} was out of contact for longer than its lease; the session can't go on`
      await settle(trx, aftermath, session, {
        status: session.cancelRequestedAt ? 'cancelled' : 'failed',
        reason: message,
        error: { code: 'WORKER_LOST', message },
        revoke: true,
      })
    }
    return lost.length
  })
}

export interface Reaper {
  close(): Promise<void>
}

/**
 * Reaps every few seconds. A plain interval and no job of pg-boss: every control plane has its own idea of since when
 * things are well, rows that another one reaps are skipped, and a look at an index with nothing to find costs nothing.
 *
 * It begins one full lease after database and control plane are up, and begins anew after any time that either was
 * away: until then workers could not renew their leases, however healthy they are.
 */
export function startReaper(
  db: Database,
  aftermath: Aftermath,
  options: { leaseMs: number; log: Logger; everyMs?: number },
): Reaper {
  const { leaseMs, log } = options
  const everyMs = options.everyMs ?? Math.min(5000, leaseMs / 10)
  let wellSince = Date.now()
  let lastTick = Date.now()
  let running: Promise<void> = Promise.resolve()
  let closed = false

  async function tick() {
    // A tick that comes very late means that this process stood still, and its workers' heartbeats with it.
    if (Date.now() - lastTick > everyMs + leaseMs / 4) wellSince = Date.now()
    lastTick = Date.now()
    try {
      const { rows } = await sql<{ upMs: number }>`
        select (extract(epoch from clock_timestamp() - pg_postmaster_start_time()) * 1000)::float8 as up_ms`.execute(db)
      const upMs = Math.min(Date.now() - wellSince, rows[0]?.upMs ?? 0)
      if (upMs < leaseMs) return
      await reap()
    } catch (error) {
      wellSince = Date.now()
      log.warn({ err: error }, 'could not look for lost sessions')
    } finally {
      lastTick = Date.now()
    }
  }

  async function reap() {
    const builds = await reapBuilds(db)
    if (builds > 0) log.warn({ builds }, 'took builds from workers that are out of contact')
    await failWaiting(db, aftermath)
    for (let reaped = batch; reaped === batch && !closed; ) {
      reaped = await reapSessions(db, aftermath)
      if (reaped > 0) log.warn({ sessions: reaped }, 'failed sessions whose workers are out of contact')
    }
  }

  let timer = setTimeout(next, everyMs)
  function next() {
    running = tick().then(() => {
      if (!closed) timer = setTimeout(next, everyMs)
    })
  }
  return {
    async close() {
      closed = true
      clearTimeout(timer)
      await running
    },
  }
}
