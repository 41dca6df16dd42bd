import type { SessionClaim } from '@paws/api'
import { type RawBuilder, sql } from 'kysely'
import type { z } from 'zod'
import type { Database } from '../database/index.ts'
import { eventChannel, notification } from '../events/index.ts'
import { largest, sessionSubject } from '../sessions/index.ts'

export interface TakeOptions {
  workerId: string
  /** Most sessions to take */
  limit: number
  leaseMs: number
}

/** How many more than asked for are looked at in each organization, since other workers may be taking the first. */
const spare = 32

interface ClaimedRow {
  id: string
  orgId: string
  fence: number
  snapshotId: string
  digest: string
  script: Buffer
  env: string
  vcpus: number
  memoryMb: number
  diskMb: number
  timeoutMs: number
  network: string
  sealedSecrets: Buffer | null
}

/** A session that was taken, as the worker gets it but for its rules, whose secrets are still sealed. */
export type Taken = Omit<z.input<typeof SessionClaim>, 'network'> &
  Pick<ClaimedRow, 'orgId' | 'network' | 'sealedSecrets'>

/**
 * Takes pending sessions for a worker: in order of creation, organizations in turn, those with fewer running first.
 * A draining worker gets none.
 *
 * @returns them, and how many others had a turn but were just being taken by other workers
 */
export async function claimSessions(
  db: Database,
  options: TakeOptions,
): Promise<{ claimed: Taken[]; passedOver: number }> {
  const taker = await findTaker(db, options.workerId)
  if (!taker) return { claimed: [], passedOver: 0 }
  const { rows } = await claimStatement(taker, options).execute(db)
  const claimed = rows.flatMap((row) => (row.id === null ? [] : [toTaken(row, options.leaseMs)]))
  const seen = rows[0]?.seen ?? 0
  return { claimed, passedOver: Math.min(seen, options.limit) - claimed.length }
}

/** A worker as far as claiming looks at it. */
export interface Taker {
  id: string
  name: string
  isolation: string
  mostVcpus: number
  mostMemoryMb: number
  /** What running sessions leave; the process driver shares memory, and this does not count */
  freeMb: number
}

export async function findTaker(db: Database, workerId: string): Promise<Taker | undefined> {
  const { rows } = await sql<Taker>`
    select id, name, state->>'isolation' as isolation, ${largest('workers', 'vcpus')} as most_vcpus,
      ${largest('workers', 'memoryMB')} as most_memory_mb, (state->'resources'->>'memoryMB')::int - coalesce((
        select sum(memory_mb) from sessions where worker_id = workers.id and status = 'running'
      ), 0) as free_mb
    from workers where id = ${workerId} and not draining`.execute(db)
  return rows[0]
}

/**
 * One statement, so that claims are made whole or not at all. Its cost depends on how many organizations wait and how
 * many sessions run, on neither the length of a queue nor the history: each step walks an index of pending or running
 * rows and stops early, and what was found is then looked up by its ids (`= any(array(…))`, as the planner would
 * rather read the whole queue for a join). `FOR UPDATE SKIP LOCKED` stands above the ordering and below the limit, so
 * claims that run at once pass over each other's rows and take the next.
 */
export function claimStatement(
  taker: Taker,
  { limit, leaseMs }: Pick<TakeOptions, 'limit' | 'leaseMs'>,
): RawBuilder<{ seen: number } & (ClaimedRow | { id: null })> {
  const isVm = taker.isolation !== 'process'
  return sql<{ seen: number } & (ClaimedRow | { id: null })>`
    with recursive waiting (org_id) as (
      (select org_id from sessions where status = 'pending' order by org_id limit 1)
      union all
      select (select s.org_id from sessions s where s.status = 'pending' and s.org_id > waiting.org_id
        order by s.org_id limit 1)
      from waiting where waiting.org_id is not null
    ), organization as materialized (
      select org_id, (select count(*) from sessions s where s.org_id = waiting.org_id and s.status = 'running') as running
      from waiting where org_id is not null
    ), queue as materialized (
      select first.id, first.created_at, first.memory_mb, organization.running + first.place as turn
      from organization cross join lateral (
        select s.id, s.created_at, s.memory_mb, row_number() over (order by s.created_at, s.id) as place
        from sessions s
        where s.org_id = organization.org_id and s.status = 'pending' and (${isVm}::boolean or s.isolation_min = 'any')
          and s.vcpus <= ${taker.mostVcpus} and s.memory_mb <= ${isVm ? taker.freeMb : taker.mostMemoryMb}
          and ${snapshotOf(sql`s`)} is not null
        order by s.created_at, s.id
        limit ${limit + spare}
      ) as first
    ), chosen as (
      select s.id
      from sessions s join (
        select id, created_at, turn, sum(memory_mb) over (order by turn, created_at, id) as needed_mb from queue
      ) as place on place.id = s.id
      where s.id = any(array(select id from queue)) and s.started_at is null and s.completed_at is null
        and (${!isVm}::boolean or place.needed_mb <= ${taker.freeMb})
      order by place.turn, place.created_at, place.id
      limit ${limit}
      for update of s skip locked
    ), claimed as (
      update sessions s set status = 'running', worker_id = ${taker.id}, worker_name = ${taker.name},
        isolation = ${taker.isolation}, fence = s.fence + 1, started_at = clock_timestamp(),
        lease_expires_at = clock_timestamp() + ${leaseMs}::float8 * interval '1 ms', last_seq = s.last_seq + 1
      where s.id = any(array(select id from chosen))
      returning s.*, ${snapshotOf(sql`s`)} as digest
    ), told as (
      insert into events (subject, seq, type, data)
      select ${sessionSubject('')} || id, last_seq, 'status', convert_to('{"status":"running"}', 'UTF8') from claimed
    )
    select counted.seen::int, claimed.id, claimed.fence, claimed.snapshot_id, claimed.digest, claimed.script,
      claimed.env, claimed.vcpus, claimed.memory_mb, claimed.disk_mb, claimed.timeout_ms,
      claimed.org_id, claimed.network, claimed.sealed_secrets, case when claimed.id is not null
        then ${notification(sql`${eventChannel(sessionSubject(''))}::text || claimed.id`)} end as told
    from (select count(*) as seen from queue) as counted left join claimed on true
    order by claimed.created_at, claimed.id`
}

/** SQL: digest of the snapshot that a session would start from, the organization's own before a shared one; or null. */
const snapshotOf = (session: RawBuilder<unknown>) => sql`(
  select n.digest from snapshots n
  where n.id = ${session}.snapshot_id and (n.org_id = ${session}.org_id or n.org_id is null)
  order by n.org_id nulls last limit 1)`

function toTaken(row: ClaimedRow, leaseMs: number): Taken {
  return {
    kind: 'session',
    sessionId: row.id,
    fence: row.fence,
    leaseMs,
    snapshot: { id: row.snapshotId, digest: row.digest },
    script: row.script.toString('utf8'),
    env: JSON.parse(row.env),
    resources: { vcpus: row.vcpus, memoryMB: row.memoryMb, diskMB: row.diskMb },
    timeoutMs: row.timeoutMs,
    orgId: row.orgId,
    network: row.network,
    sealedSecrets: row.sealedSecrets,
  }
}
