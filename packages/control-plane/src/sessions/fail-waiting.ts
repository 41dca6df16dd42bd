import { sql } from 'kysely'
import type { Database } from '../database/index.ts'
import { type Aftermath, lockSession, settle } from './settle.ts'

/**
 * Fails the pending sessions whose snapshot will not come: its last build failed, none is under way and no earlier one
 * serves. Called after a build has failed and now and then, for what a crash in between has left.
 *
 * @returns how many
 */
export async function failWaiting(db: Database, aftermath: Aftermath): Promise<number> {
  const hopeless = await hopelessSnapshots(db)
  if (hopeless.length === 0) return 0
  const { rows } = await sql<{ id: string; snapshotId: string; jobId: string; error: string | null }>`
    select s.id, s.snapshot_id, last.job_id, last.error
    from sessions s cross join lateral (
      select b.job_id, b.status, b.error from builds b
      where b.snapshot_id = s.snapshot_id and (b.org_id = s.org_id or b.org_id is null)
      order by b.job_id desc limit 1
    ) as last
    where s.status = 'pending' and s.snapshot_id = any(${hopeless}::text[]) and last.status = 'failed' and not exists (
      select from snapshots n where n.id = s.snapshot_id and (n.org_id = s.org_id or n.org_id is null)
    )`.execute(db)
  let failed = 0
  for (const { id, snapshotId, jobId, error } of rows) {
    const message = `Snapshot "${snapshotId}" could not be built (${jobId}): ${error ?? 'its log says why'}`
    failed += await db.transaction().execute(async (trx) => {
      const session = await lockSession(trx, id)
      if (session?.status !== 'pending') return 0
      await settle(trx, aftermath, session, {
        status: 'failed',
        reason: message,
        error: { code: 'SNAPSHOT_BUILD_FAILED', message },
      })
      return 1
    })
  }
  return failed
}

// Nearly always there is none, and the queue need not be looked at.
async function hopelessSnapshots(db: Database): Promise<string[]> {
  const { rows } = await sql<{ snapshotId: string }>`
    select distinct snapshot_id from builds b
    where status = 'failed' and not exists (
      select from builds later where later.snapshot_id = b.snapshot_id and later.job_id > b.job_id
        and later.org_id is not distinct from b.org_id
    )`.execute(db)
  return rows.map(({ snapshotId }) => snapshotId)
}
