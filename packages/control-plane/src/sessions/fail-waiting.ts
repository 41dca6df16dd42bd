import { sql } from 'kysely'
import type { Database } from '../database/index.ts'
import { type Aftermath, lockSession, settle } from './settle.ts'

/**
 * Fails the pending sessions whose snapshot will not come: none serves, and no build is under way, since the last one
 * failed or the snapshot was deleted. Called after either and now and then, for what a crash in between has left.
 *
 * @returns how many
 */
export async function failWaiting(db: Database, aftermath: Aftermath): Promise<number> {
  const hopeless = await hopelessSnapshots(db)
  if (hopeless.length === 0) return 0
  const { rows } = await sql<{ id: string; snapshotId: string; jobId: string; status: string; error: string | null }>`
    select s.id, s.snapshot_id, last.job_id, last.status, last.error
    from sessions s cross join lateral (
      select b.job_id, b.status, b.error from builds b
      where b.snapshot_id = s.snapshot_id and (b.org_id = s.org_id or b.org_id is null)
      order by b.job_id desc limit 1
    ) as last
    where s.status = 'pending' and s.snapshot_id = any(${hopeless}::text[]) and last.status in ('failed', 'ready')
      and not exists (
        select from snapshots n where n.id = s.snapshot_id and (n.org_id = s.org_id or n.org_id is null)
      )`.execute(db)
  let failed = 0
  for (const { id, snapshotId, jobId, status, error } of rows) {
    const why = status === 'failed' ? `could not be built (${jobId}): ${error ?? 'its log says why'}` : 'was deleted'
    const message = `Snapshot "${snapshotId}" ${why}`
    failed += await db.transaction().execute(async (trx) => {
      const session = await lockSession(trx, id)
      if (session?.status !== 'pending') return 0
      await settle(trx, aftermath, session, {
        status: 'failed',
        reason: message,
        error: { code: status === 'failed' ? 'SNAPSHOT_BUILD_FAILED' : 'SNAPSHOT_NOT_FOUND', message },
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
    where status in ('failed', 'ready') and not exists (
      select from snapshots n where n.id = b.snapshot_id and n.org_id is not distinct from b.org_id
    ) and not exists (
      select from builds other where other.snapshot_id = b.snapshot_id and other.status in ('queued', 'building')
        and other.org_id is not distinct from b.org_id
    )`.execute(db)
  return rows.map(({ snapshotId }) => snapshotId)
}
