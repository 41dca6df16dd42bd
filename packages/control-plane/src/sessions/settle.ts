import type { sessionEnded } from '@paws/api'
import { sql } from 'kysely'
import type { Transaction } from '../database/index.ts'
import type { Deliveries } from '../delivery/index.ts'
import { eventChannel, notification } from '../events/index.ts'
import type { Jobs } from '../jobs/index.ts'
import { archiveQueue } from './archive.ts'
import { describe, inlineBytes, type SessionRow, sessionColumns, sessionSubject } from './session.ts'

/** What is told of an end: the callback, and the job that moves a long output away. */
export interface Aftermath {
  deliveries: Deliveries
  jobs: Jobs
}

export interface Ending {
  status: (typeof sessionEnded)[number]
  /** Why, in a sentence, where the status alone does not say */
  reason?: string
  exitCode?: number
  error?: { code: string; message: string }
  /** JSON text */
  output?: string
  /** Wall time from start to end; by the database's clock unless given */
  durationMs?: number
  /** Takes the lease away, so that a late report of it is refused */
  revoke?: boolean
}

export type LockedSession = SessionRow & { now: Date }

/** A session's row, locked until the transaction ends, with the time of that. */
export async function lockSession(trx: Transaction, sessionId: string): Promise<LockedSession | undefined> {
  return trx
    .selectFrom('sessions')
    .select(sessionColumns)
    .select(sql<Date>`clock_timestamp()`.as('now'))
    .where('id', '=', sessionId)
    .forUpdate()
    .executeTakeFirst()
}

/**
 * Ends a session whose row the caller has locked and found pending or running: status, usage, last events and
 * callback are written together, so a crash leaves all or none of them. Its secrets are erased with that.
 */
export async function settle(
  trx: Transaction,
  { deliveries, jobs }: Aftermath,
  locked: LockedSession,
  ending: Ending,
): Promise<SessionRow> {
  const { now, ...row } = locked
  const ended: SessionRow = {
    ...row,
    status: ending.status,
    exitCode: ending.exitCode ?? null,
    error: ending.error ? JSON.stringify(ending.error) : null,
    output: ending.output ?? null,
    completedAt: now,
    durationMs: ending.durationMs ?? (row.startedAt ? Math.max(0, now.getTime() - row.startedAt.getTime()) : null),
    fence: row.fence + (ending.revoke ? 1 : 0),
    lastSeq: row.lastSeq + 2,
  }
  await write(trx, ended, ending.reason)
  if (ended.callbackUrl !== null) {
    await deliveries.queue(trx, { orgId: ended.orgId, sessionId: ended.id, url: ended.callbackUrl })
  }
  if (ended.stdoutBytes > inlineBytes || ended.stderrBytes > inlineBytes) {
    await jobs.send(trx, archiveQueue, { sessionId: ended.id })
  }
  return ended
}

async function write(trx: Transaction, ended: SessionRow, reason: string | undefined): Promise<void> {
  const subject = sessionSubject(ended.id)
  const status = Buffer.from(JSON.stringify({ status: ended.status, reason }))
  const done = Buffer.from(JSON.stringify(describe(ended)))
  await sql`
    with settled as (
      update sessions set status = ${ended.status}, exit_code = ${ended.exitCode}, error = ${ended.error},
        output = ${ended.output}, completed_at = ${ended.completedAt}, duration_ms = ${ended.durationMs},
        fence = ${ended.fence}, last_seq = ${ended.lastSeq}, lease_expires_at = null,
        sealed_secrets = null
      where id = ${ended.id}
    ), told as (
      insert into events (subject, seq, type, data)
      values (${subject}, ${ended.lastSeq - 1}, 'status', ${status}), (${subject}, ${ended.lastSeq}, 'done', ${done})
    )
    select ${notification(eventChannel(subject))}`.execute(trx)
}
