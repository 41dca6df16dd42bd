import type { Build } from '@paws/api'
import type { Selectable } from 'kysely'
import type { z } from 'zod'
import type { Database, DB } from '../database/index.ts'
import { ApiError } from '../errors.ts'
import { readTails } from '../events/index.ts'
import { buildSubject, isShared, queueBuild } from './queue.ts'
import { findSnapshot, snapshotNotFound } from './snapshot.ts'
import { isTemplate } from './templates.ts'

export type BuildRow = Selectable<DB['builds']>
export type BuildEvent = Omit<z.input<typeof Build>, 'log'>

/** How much of a log stands in an answer, in bytes: its end. */
const logBytes = 256 * 1024

/**
 * Asks for a build, or joins the one that is under way. A config is its organization's to build. Of templates anybody
 * may ask for one that is missing; to replace a good one, from which everybody's sessions start, is the operator's.
 *
 * @throws SNAPSHOT_NOT_FOUND; FORBIDDEN for a template that is ready, unless the operator asks
 */
export async function requestBuild(
  db: Database,
  caller: { orgId: string; operator: boolean },
  snapshotId: string,
): Promise<{ jobId: string }> {
  const snapshot = await findSnapshot(db, caller.orgId, snapshotId)
  if (snapshot.status === 'unknown') throw snapshotNotFound(snapshotId)
  const restricted = !snapshot.configured && isTemplate(snapshotId) && !caller.operator
  return db.transaction().execute(async (trx) => {
    const build = await queueBuild(trx, caller.orgId, snapshotId)
    // Only now: a build that ended a moment ago has made it ready, and one that is new is taken back.
    if (restricted && (await isShared(trx, snapshotId))) throw rebuildForbidden(snapshotId)
    return build
  })
}

function rebuildForbidden(snapshotId: string): ApiError {
  const why = 'sessions of every organization start from it, so only the operator may build it again'
  return new ApiError('FORBIDDEN', `Snapshot "${snapshotId}" is ready, and ${why}`)
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
