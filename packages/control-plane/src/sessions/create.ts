import type { CreateSession } from '@paws/api'
import { sql } from 'kysely'
import type { z } from 'zod'
import type { Database, Transaction } from '../database/index.ts'
import { ApiError } from '../errors.ts'
import { notification } from '../events/index.ts'
import { newUuid } from '../ids.ts'
import { findSnapshot, listSnapshots, queueBuild, workChannel } from '../snapshots/index.ts'
import type { Vault } from '../vault/index.ts'
import { assertRunnable } from './capacity.ts'
import { resolveNetwork, sealValues } from './credentials.ts'
import { labelsOf } from './labels.ts'
import { sessionSubject } from './session.ts'

export interface CreateOptions {
  /** Seals the credentials, and opens the stored secrets that they name */
  vault: Vault
  /** Most pending sessions of one organization */
  queueLimit: number
  /** Refuses a callback URL that could not be delivered to; @throws ApiError */
  vetCallback: (url: string) => void
}

/**
 * Queues a session: one row, its first event and the wake-up, together.
 *
 * @throws SNAPSHOT_NOT_FOUND, CAPACITY_EXHAUSTED, VALIDATION_ERROR for a callback URL that isn't public https and for
 * a stored secret that isn't there
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

  const { vault, queueLimit } = options
  const { shown, values } = await resolveNetwork(db, vault, orgId, request.network)

  const sessionId = newUuid()
  const wish = { sessionId, orgId, request, network: JSON.stringify(shown), queueLimit }
  const isReady = snapshot.status === 'ready'
  const stored =
    isReady && !values
      ? await insert(db, wish)
      : await db.transaction().execute(async (trx) => {
          const sealedSecrets = values && (await sealValues(trx, vault, orgId, sessionId, values))
          const reason = isReady ? undefined : await queueMissing(trx, orgId, request.snapshot)
          return insert(trx, { ...wish, sealedSecrets, reason })
        })
  if (!stored) throw queueFull(queueLimit)
  return { sessionId, status: 'pending' }
}

/** @returns why the session waits */
async function queueMissing(trx: Transaction, orgId: string, snapshot: string): Promise<string> {
  const { jobId } = await queueBuild(trx, orgId, snapshot)
  return `Snapshot "${snapshot}" is not built yet; waiting for ${jobId}`
}

interface NewSession {
  sessionId: string
  orgId: string
  request: z.output<typeof CreateSession>
  /** As it is shown, JSON text */
  network: string
  sealedSecrets?: Buffer | null
  queueLimit: number
  /** Why it waits */
  reason?: string | undefined
}

/** One statement, so one round trip. Requests in flight together may each take the last place of the queue. */
async function insert(db: Database, session: NewSession): Promise<boolean> {
  const { sessionId, orgId, request, queueLimit } = session
  const { workload, resources, metadata } = request
  const event = JSON.stringify({ status: 'pending', reason: session.reason })
  const { rows } = await sql`
    with queued as (
      select count(*) as number from (
        select from sessions where org_id = ${orgId} and status = 'pending' limit ${queueLimit}
      ) as pending
    ), stored as (
      insert into sessions (id, org_id, snapshot_id, isolation_min, script, env, vcpus, memory_mb, disk_mb,
        timeout_ms, callback_url, metadata, labels, network, sealed_secrets, last_seq)
      select ${sessionId}, ${orgId}, ${request.snapshot}, ${request.isolation}, ${Buffer.from(workload.script)},
        ${JSON.stringify(workload.env ?? {})}, ${resources.vcpus}, ${resources.memoryMB}, ${resources.diskMB},
        ${request.timeoutMs}, ${request.callbackUrl ? new URL(request.callbackUrl).href : null},
        ${metadata ? JSON.stringify(metadata) : null}, ${labelsOf(metadata ?? {})},
        ${session.network}, ${session.sealedSecrets ?? null}::bytea, 1
      from queued where number < ${queueLimit}
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
