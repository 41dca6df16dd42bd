import { sql } from 'kysely'
import type { Blobs } from '../blobs/index.ts'
import type { Database, Transaction } from '../database/index.ts'
import { ApiError } from '../errors.ts'
import { appendEvents, type NewEvent, notify } from '../events/index.ts'
import { type BuildRow, buildNotFound, describeBuild, isJobId } from './build.ts'
import { readManifest } from './files.ts'
import { assertFits, assertOfOwn } from './fit.ts'
import { buildSubject, isShared, workChannel } from './queue.ts'

/** Which claim of a build a report is about. */
export interface BuildLease {
  jobId: string
  workerId: string
  fence: number
}

export type BuildOutcome = { status: 'ready'; digest: string; sizeBytes: number } | { status: 'failed'; error: string }

/** Stores progress and log of a running build. @throws BUILD_NOT_FOUND, LEASE_LOST */
export async function storeReport(
  db: Database,
  lease: BuildLease,
  report: { progress: number; step: string; log: string },
): Promise<void> {
  await db.transaction().execute(async (trx) => {
    const build = await lockBuild(trx, lease.jobId)
    if (!isHeld(build, lease)) throw leaseLost(lease)
    const step = storable(report.step)
    const progress = { status: 'building', progress: report.progress, step }
    const added: NewEvent[] = report.log ? [{ type: 'log', data: Buffer.from(report.log) }] : []
    added.push({ type: 'progress', data: Buffer.from(JSON.stringify(progress)) })
    await appendEvents(trx, buildSubject(build.jobId), build.lastSeq + 1, added)
    await trx
      .updateTable('builds')
      .set({ progress: report.progress, step, lastSeq: build.lastSeq + added.length })
      .where('jobId', '=', build.jobId)
      .execute()
  })
}

/**
 * Settles a build, once. A good one is the next version of its snapshot; a failed one leaves the last good version.
 * The same report again is acknowledged and changes nothing.
 *
 * @throws BUILD_NOT_FOUND, LEASE_LOST, CONFLICT when the snapshot's files aren't stored or are of something else
 */
export async function finishBuild(
  services: { db: Database; blobs: Blobs },
  lease: BuildLease,
  outcome: BuildOutcome,
): Promise<{ status: string }> {
  const manifest = outcome.status === 'ready' ? await readManifest(services.blobs, outcome.digest) : undefined
  if (outcome.status === 'ready' && !manifest) {
    throw new ApiError('CONFLICT', `The files of ${outcome.digest} are not stored: put them, the manifest last`)
  }
  return services.db.transaction().execute(async (trx) => {
    const build = await lockBuild(trx, lease.jobId)
    if (isSettledBy(build, lease, outcome)) return { status: outcome.status }
    if (!isHeld(build, lease)) throw leaseLost(lease)
    if (outcome.status === 'ready' && manifest) {
      assertFits(manifest, build)
      await assertOfOwn(trx, build, outcome.digest)
      await nextVersion(trx, build, outcome)
    }
    await settle(trx, build, outcome)
    return { status: outcome.status }
  })
}

async function nextVersion(
  trx: Transaction,
  { snapshotId, orgId }: BuildRow,
  good: { digest: string; sizeBytes: number },
) {
  // The unfinished build's row is locked and there is one a snapshot: nobody else writes this row.
  await sql`
    insert into snapshots (id, org_id, version, digest, size_bytes)
    values (${snapshotId}, ${orgId}, 1, ${good.digest}, ${good.sizeBytes})
    on conflict (id, coalesce(org_id, '')) do update set version = snapshots.version + 1,
      digest = excluded.digest, size_bytes = excluded.size_bytes, built_at = now()`.execute(trx)
}

/** Writes the end of a build with its last event, and wakes what waited for it. */
export async function settle(trx: Transaction, build: BuildRow, outcome: BuildOutcome): Promise<void> {
  const ended =
    outcome.status === 'ready'
      ? { status: 'ready', digest: outcome.digest, progress: 1, step: null }
      : { status: 'failed', error: storable(outcome.error) }
  const row = await trx
    .updateTable('builds')
    .set({ ...ended, completedAt: sql`clock_timestamp()`, leaseExpiresAt: null, lastSeq: build.lastSeq + 1 })
    .where('jobId', '=', build.jobId)
    .returningAll()
    .executeTakeFirstOrThrow()
  const data = Buffer.from(JSON.stringify(describeBuild(row)))
  await appendEvents(trx, buildSubject(row.jobId), row.lastSeq, [{ type: 'done', data }])
  await notify(trx, workChannel)
  if (outcome.status === 'failed' && build.orgId === null) await failDependents(trx, row)
}

/** What waits for a snapshot that will not come fails with it. An earlier good version lets it go on. */
async function failDependents(trx: Transaction, { snapshotId, jobId, error }: BuildRow): Promise<void> {
  if (await isShared(trx, snapshotId)) return
  const dependents = await trx
    .selectFrom('builds')
    .selectAll()
    .where('baseId', '=', snapshotId)
    .where('status', '=', 'queued')
    .orderBy('jobId')
    .forUpdate()
    .execute()
  for (const dependent of dependents) {
    const why = `Snapshot "${snapshotId}", which it starts from, could not be built (${jobId}): ${error}`
    await settle(trx, dependent, { status: 'failed', error: why })
  }
}

async function lockBuild(trx: Transaction, jobId: string): Promise<BuildRow> {
  if (!isJobId(jobId)) throw buildNotFound(jobId)
  const row = await trx.selectFrom('builds').selectAll().where('jobId', '=', jobId).forUpdate().executeTakeFirst()
  if (!row) throw buildNotFound(jobId)
  return row
}

const isOf = (build: BuildRow, lease: BuildLease) => build.workerId === lease.workerId && build.fence === lease.fence
const isHeld = (build: BuildRow, lease: BuildLease) => build.status === 'building' && isOf(build, lease)

function isSettledBy(build: BuildRow, lease: BuildLease, outcome: BuildOutcome): boolean {
  if (!isOf(build, lease) || build.status !== outcome.status) return false
  return outcome.status === 'ready' ? build.digest === outcome.digest : build.error === storable(outcome.error)
}

function leaseLost({ jobId }: BuildLease): ApiError {
  return new ApiError('LEASE_LOST', `Build "${jobId}" is no longer this worker's: stop it and report nothing`)
}

/** As it will be read back: text has no lone surrogates there, and the contract lets no NUL in. */
const storable = (text: string) => text.toWellFormed()
