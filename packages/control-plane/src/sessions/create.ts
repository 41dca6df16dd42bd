import type { CreateSession } from '@paws/api'
import { sql } from 'kysely'
import type { z } from 'zod'
import type { Database } from '../database/index.ts'
import { ApiError } from '../errors.ts'
import { notification } from '../events/index.ts'
import { newUuid } from '../ids.ts'
import { findSnapshot, listSnapshots, queueBuild, workChannel } from '../snapshots/index.ts'
import { assertRunnable } from './capacity.ts'
import { labelsOf } from './labels.ts'
import { sessionSubject } from './session.ts'

export interface CreateOptions {
  /** Most pending sessions of one organization */
  queueLimit: number
  /** Refuses a callback URL that could not be delivered to; @throws ApiError */
  vetCallback: (url: string) => void
}

/**
 * Queues a session: one row, its first event and the wake-up, together.
 *
 * @throws SNAPSHOT_NOT_FOUND, CAPACITY_EXHAUSTED, VALIDATION_ERROR for a callback URL that isn't public https
 */
export async function createSession(
  db: Database,
  orgId: string,
  asked: z.output<typeof CreateSession>,
  options: CreateOptions,
): Promise<{ sessionId: string; status: 'pending' }> {
  if (asked.callbackUrl) options.vetCallback(asked.callbackUrl)
  const snapshot = await findSnapshot(db, orgId, asked.snapshot)
  if (snapshot.status === 'unknown') throw await snapshotNotFound(db, orgId, asked.snapshot)
  // The stricter of what is asked for and what the snapshot's config demands.
  const request = snapshot.isolationMin === 'vm' ? { ...asked, isolation: snapshot.isolationMin } : asked
  await assertRunnable(db, request)

  const sessionId = newUuid()
  const stored =
    snapshot.status === 'ready'
      ? await insert(db, sessionId, orgId, request, options)
      : await db.transaction().execute(async (trx) => {
          const { jobId } = await queueBuild(trx, orgId, request.snapshot)
          const reason = `Snapshot "${request.snapshot}" is not built yet; waiting for ${jobId}`
          return insert(trx, sessionId, orgId, request, { ...options, reason })
        })
  if (!stored) throw queueFull(options.queueLimit)
  return { sessionId, status: 'pending' }
}

/** One statement, so one round trip. Requests in flight together may each take the last place of the queue. */
async function insert(
  db: Database,
  sessionId: string,
  orgId: string,
  request: z.output<typeof CreateSession>,
  options: { queueLimit: number; reason?: string },
): Promise<boolean> {
  const { workload, resources, metadata } = request
  const event = JSON.stringify({ status: 'pending', reason: options.reason })
  const { rows } = await sql`
    with queued as (
      select count(*) as number from (
        select from sessions where org_id = ${orgId} and status = 'pending' limit ${options.queueLimit}
      ) as pending
    ), stored as (
      insert into sessions (id, org_id, snapshot_id, isolation_min, script, env, vcpus, memory_mb, disk_mb,
        timeout_ms, callback_url, metadata, labels, last_seq)
      select ${sessionId}, ${orgId}, ${request.snapshot}, ${request.isolation}, ${Buffer.from(workload.script)},
        ${JSON.stringify(workload.env ?? {})}, ${resources.vcpus}, ${resources.memoryMB}, ${resources.diskMB},
        ${request.timeoutMs}, ${request.callbackUrl ? new URL(request.callbackUrl).href : null},
        ${metadata ? JSON.stringify(metadata) : null}, ${labelsOf(metadata ?? {})}, 1
      from queued where number < ${options.queueLimit}
      returning id
    ), told as (
      insert into events (subject, seq, type, data)
      select ${sessionSubject(sessionId)}, 1, 'status', ${Buffer.from(event)} from stored
    )
    select ${notification(workChannel)} from stored`.execute(db)
  return rows.length === 1
}

async function snapshotNotFound(db: Database, orgId: string, id: string): Promise<ApiError> {
  const ready = (await listSnapshots(db, orgId)).filter(({ status }) => status === 'ready').map((one) => one.id)
  const remedy =
    ready.length > 0 ? `Ready ones: ${ready.join(', ')}.` : 'None is ready yet; GET /v1/templates lists some.'
  return new ApiError('SNAPSHOT_NOT_FOUND', `Snapshot "${id}" does not exist. ${remedy}`)
}

function queueFull(limit: number): ApiError {
  return new ApiError(
    'CAPACITY_EXHAUSTED',
    `${limit} sessions of this organization are pending already, which is the limit. Come again when some have started.`,
    { retryAfterMs: 5000 },
  )
}
