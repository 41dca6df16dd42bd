import type { Build } from '@paws/api'
import type { Selectable } from 'kysely'
import type { z } from 'zod'
import type { Database, DB, Transaction } from '../database/index.ts'
import { ApiError } from '../errors.ts'
import { appendEvents, notify, readTails } from '../events/index.ts'
import { newId } from '../ids.ts'
import { findSnapshot, snapshotNotFound } from './snapshot.ts'

export type BuildRow = Selectable<DB['builds']>
export type BuildEvent = Omit<z.input<typeof Build>, 'log'>

/** Whose events these are, in the table of events. */
export const buildSubject = (jobId: string) => `build:${jobId}`
/** Wakes the waiting claims of the fleet. */
export const workChannel = 'work'
/** How much of a log stands in an answer, in bytes: its end. */
const logBytes = 256 * 1024

/**
 * Asks for a build of a template, or joins the one that is under way. Anybody may ask for one that is missing; to
 * replace a good one, from which everybody's sessions start, is the operator's.
 *
 * @throws SNAPSHOT_NOT_FOUND; FORBIDDEN for a template that is ready, unless the operator asks
 */
export async function requestBuild(
  db: Database,
  caller: { orgId: string; operator: boolean },
  snapshotId: string,
): Promise<{ jobId: string }> {
  if ((await findSnapshot(db, caller.orgId, snapshotId)).status === 'unknown') throw snapshotNotFound(snapshotId)
  return db.transaction().execute(async (trx) => {
    const build = await queueBuild(trx, snapshotId)
    // Only now: a build that ended a moment ago has made it ready, and one that is new is taken back.
    if (!caller.operator && (await isShared(trx, snapshotId))) throw rebuildForbidden(snapshotId)
    return build
  })
}

async function isShared(trx: Transaction, snapshotId: string): Promise<boolean> {
  const query = trx.selectFrom('snapshots').select('id').where('id', '=', snapshotId).where('orgId', 'is', null)
  return (await query.executeTakeFirst()) !== undefined
}

function rebuildForbidden(snapshotId: string): ApiError {
  const why = 'sessions of every organization start from it, so only the operator may build it again'
  return new ApiError('FORBIDDEN', `Snapshot "${snapshotId}" is ready, and ${why}`)
}

/** Queues a build of a snapshot that is known to be a template: it has no organization, and all share what is built. */
export async function queueBuild(trx: Transaction, snapshotId: string): Promise<{ jobId: string }> {
  for (;;) {
    const made = await trx
      .insertInto('builds')
      .values({ jobId: newId('build-'), snapshotId, template: snapshotId, lastSeq: 1 })
      .onConflict((oc) => oc.doNothing())
      .returning('jobId')
      .executeTakeFirst()
    if (made) {
      await tell(trx, made.jobId, 1, { status: 'queued', progress: 0 })
      await notify(trx, workChannel)
      return made
    }
    // Held fast, so that it can't fail before the session that waits for it is stored.
    const unfinished = await trx
      .selectFrom('builds')
      .select('jobId')
      .where('snapshotId', '=', snapshotId)
      .where('orgId', 'is', null)
      .where('status', 'in', ['queued', 'building'])
      .forShare()
      .executeTakeFirst()
    // None any more: it has ended between the two statements.
    if (unfinished) return unfinished
  }
}

export async function tell(
  trx: Transaction,
  jobId: string,
  seq: number,
  event: { status: string; progress: number; step?: string },
) {
  await appendEvents(trx, buildSubject(jobId), seq, [{ type: 'progress', data: Buffer.from(JSON.stringify(event)) }])
}

/** @throws SNAPSHOT_NOT_FOUND, BUILD_NOT_FOUND */
export async function findBuild(db: Database, orgId: string, snapshotId: string, jobId: string): Promise<BuildRow> {
  if ((await findSnapshot(db, orgId, snapshotId)).status === 'unknown') throw snapshotNotFound(snapshotId)
  if (!isJobId(jobId)) throw buildNotFound(jobId)
  const row = await db
    .selectFrom('builds')
    .selectAll()
    .where('jobId', '=', jobId)
    .where('snapshotId', '=', snapshotId)
    .where((eb) => eb.or([eb('orgId', '=', orgId), eb('orgId', 'is', null)]))
    .executeTakeFirst()
  if (!row) throw buildNotFound(jobId)
  return row
}

/** A build with the end of its log. @throws SNAPSHOT_NOT_FOUND, BUILD_NOT_FOUND */
export async function getBuild(db: Database, orgId: string, snapshotId: string, jobId: string) {
  const row = await findBuild(db, orgId, snapshotId, jobId)
  return { ...describeBuild(row), ...(await readTails(db, buildSubject(jobId), ['log'], logBytes)) }
}

/** A build without its log, as its last event carries it. */
export function describeBuild(row: BuildRow): BuildEvent {
  return {
    snapshotId: row.snapshotId,
    jobId: row.jobId,
    status: row.status as BuildEvent['status'],
    progress: Math.round(row.progress * 1000) / 1000,
    ...(row.step !== null && { step: row.step }),
    ...(row.error !== null && { error: row.error }),
    ...(row.digest !== null && { digest: row.digest }),
    ...(row.workerName !== null && { worker: row.workerName }),
    createdAt: row.createdAt.toISOString(),
    ...(row.startedAt && { startedAt: row.startedAt.toISOString() }),
    ...(row.completedAt && { completedAt: row.completedAt.toISOString() }),
  }
}

export const isJobId = (text: string) => /^build-[0-9a-f]{32}$/.test(text)

export function buildNotFound(jobId: string): ApiError {
  return new ApiError('BUILD_NOT_FOUND', `Build "${jobId}" does not exist`)
}
