import type { WorkerState } from '@paws/api'
import { sql } from 'kysely'
import type { z } from 'zod'
import type { Database } from '../database/index.ts'
import { ApiError } from '../errors.ts'
import { isUuid } from '../ids.ts'
import { renewBuilds } from '../snapshots/index.ts'

interface Held {
  kind: 'session' | 'build'
  id: string
  fence: number
}

export interface HeartbeatAnswer {
  /** From now, for each that was renewed */
  leaseMs: number
  /** Ids whose lease is no longer this worker's */
  lost: string[]
  /** Ids that a user has cancelled */
  cancel: string[]
  draining: boolean
}

/** Notes that a worker lives and renews the leases of what it runs, all sessions in one statement. */
export async function heartbeat(
  db: Database,
  workerId: string,
  report: { state: z.output<typeof WorkerState>; held: Held[] },
  leaseMs: number,
): Promise<HeartbeatAnswer> {
  const builds = report.held.filter(({ kind }) => kind === 'build')
  const sessions = report.held.filter(({ kind, id }) => kind === 'session' && isUuid(id))
  const { rows } = await sql<{ draining: boolean; renewed: string[]; cancel: string[] }>`
    with seen as (
      update workers set state = ${JSON.stringify(report.state)}, last_seen_at = now()
      where id = ${workerId} returning draining
    ), renewed as (
      update sessions set lease_expires_at = now() + ${leaseMs}::float8 * interval '1 ms'
      from unnest(${sessions.map(({ id }) => id)}::uuid[], ${sessions.map(({ fence }) => fence)}::int[]) as held (id, fence)
      where sessions.id = held.id and sessions.fence = held.fence
        and sessions.worker_id = ${workerId} and sessions.status = 'running'
      returning sessions.id, sessions.cancel_requested_at is not null as cancelled
    )
    select seen.draining,
      array(select id::text from renewed) as renewed,
      array(select id::text from renewed where cancelled) as cancel
    from seen`.execute(db)
  const [answer] = rows
  if (!answer) throw new ApiError('UNAUTHORIZED', 'This worker has been removed from the fleet')
  const kept = new Set([...answer.renewed, ...(await renewBuilds(db, workerId, builds, leaseMs))])
  const lost = report.held.map(({ id }) => id).filter((id) => !kept.has(id))
  return { leaseMs, lost, cancel: answer.cancel, draining: answer.draining }
}
