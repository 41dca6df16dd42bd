import type { BuildClaim } from '@paws/api'
import { sql } from 'kysely'
import type { z } from 'zod'
import type { Database, Transaction } from '../database/index.ts'
import type { BuildRow } from './build.ts'
import { type FrozenConfig, tell } from './queue.ts'

const lease = (leaseMs: number) => sql<Date>`clock_timestamp() + ${leaseMs}::float8 * interval '1 ms'`

/**
 * Takes queued builds for a worker; none while it drains. Templates come first, since everybody waits for those, then
 * the organizations in turn, those with fewer under way before others. What starts from a snapshot that isn't ready
 * waits for that.
 */
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
    const claims = []
    for (const jobId of await nextBuilds(trx, limit)) {
      const row = await trx
        .updateTable('builds')
        .set({ status: 'building', workerId, workerName: worker.name, leaseExpiresAt: lease(leaseMs) })
        .set({ fence: sql`fence + 1`, lastSeq: sql`last_seq + 1`, startedAt: sql`clock_timestamp()`, step: 'Starting' })
        // It may have got a new version a moment ago: the claim and the check of the manifest go by this one.
        .set({ baseDigest: sql`(select digest from snapshots n where n.id = base_id and n.org_id is null)` })
        .where('jobId', '=', jobId)
        .returningAll()
        .executeTakeFirstOrThrow()
      await tell(trx, jobId, row.lastSeq, { status: 'building', progress: 0, step: 'Starting' })
      claims.push(toClaim(row, leaseMs))
    }
    return claims
  })
}

async function nextBuilds(trx: Transaction, limit: number): Promise<string[]> {
  const { rows } = await sql<{ jobId: string }>`
    select b.job_id from builds b join (
      select q.job_id, row_number() over (partition by q.org_id order by q.job_id) + (
        select count(*) from builds r where r.org_id = q.org_id and r.status = 'building'
      ) as turn
      from builds q
      where q.status = 'queued' and (q.base_id is null or exists (
        select from snapshots n where n.id = q.base_id and n.org_id is null
      ))
    ) as place on place.job_id = b.job_id
    where b.status = 'queued'
    order by b.org_id is not null, place.turn, b.job_id
    limit ${limit}
    for update of b skip locked`.execute(trx)
  return rows.map(({ jobId }) => jobId)
}

function toClaim(row: BuildRow, leaseMs: number): z.input<typeof BuildClaim> {
  const { jobId, fence, snapshotId, template, orgId, config, baseId, baseDigest } = row
  const frozen: FrozenConfig | null = config === null ? null : JSON.parse(config)
  return {
    ...{ kind: 'build', jobId, fence, leaseMs, snapshotId, template },
    config: frozen && orgId !== null ? { organization: orgId, ...frozen } : null,
    base: baseId !== null && baseDigest !== null ? { id: baseId, digest: baseDigest } : null,
  }
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
