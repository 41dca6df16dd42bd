import type { BuildClaim } from '@paws/api'
import { sql } from 'kysely'
import type { z } from 'zod'
import type { Database } from '../database/index.ts'
import { tell } from './build.ts'

const lease = (leaseMs: number) => sql<Date>`clock_timestamp() + ${leaseMs}::float8 * interval '1 ms'`

/** Takes queued builds for a worker, the oldest first; none while it drains. */
export async function claimBuilds(
  db: Database,
  { workerId, limit, leaseMs }: { workerId: string; limit: number; leaseMs: number },
): Promise<z.input<typeof BuildClaim>[]> {
  // Looked at without a transaction first: nearly always there is nothing.
  const waiting = await db.selectFrom('builds').select('jobId').where('status', '=', 'queued').limit(1).execute()
  if (waiting.length === 0) return []
  return db.transaction().execute(async (trx) => {
    const worker = await trx
      .selectFrom('workers')
      .select('name')
      .where('id', '=', workerId)
      .where('draining', '=', false)
      .executeTakeFirst()
    if (!worker) return []
    const taken = await trx
      .selectFrom('builds')
      .select('jobId')
      .where('status', '=', 'queued')
      .orderBy('jobId')
      .limit(limit)
      .forUpdate()
      .skipLocked()
      .execute()
    const claims = []
    for (const { jobId } of taken) {
      const row = await trx
        .updateTable('builds')
        .set({ status: 'building', workerId, workerName: worker.name, leaseExpiresAt: lease(leaseMs) })
        .set({ fence: sql`fence + 1`, lastSeq: sql`last_seq + 1`, startedAt: sql`clock_timestamp()`, step: 'Starting' })
        .where('jobId', '=', jobId)
        .returning(['fence', 'lastSeq', 'snapshotId', 'template'])
        .executeTakeFirstOrThrow()
      await tell(trx, jobId, row.lastSeq, { status: 'building', progress: 0, step: 'Starting' })
      const { fence, snapshotId, template } = row
      claims.push({ kind: 'build' as const, jobId, fence, leaseMs, snapshotId, template })
    }
    return claims
  })
}

/** Renews the leases of builds that a worker says it runs. @returns ids of those which are still its own */
export async function renewBuilds(
  db: Database,
  workerId: string,
  held: { id: string; fence: number }[],
  leaseMs: number,
): Promise<string[]> {
  if (held.length === 0) return []
  const { rows } = await sql<{ jobId: string }>`
    update builds set lease_expires_at = ${lease(leaseMs)}
    from unnest(${held.map(({ id }) => id.replaceAll('\0', ''))}::text[], ${held.map(({ fence }) => fence)}::int[]) as held (id, fence)
    where builds.job_id = held.id and builds.fence = held.fence
      and builds.worker_id = ${workerId} and builds.status = 'building'
    returning builds.job_id`.execute(db)
  return rows.map(({ jobId }) => jobId)
}
