import type { Snapshot } from '@paws/api'
import { sql } from 'kysely'
import type { z } from 'zod'
import type { Database } from '../database/index.ts'
import { ApiError } from '../errors.ts'
import { isTemplate, knownTemplates, listTemplates } from './templates.ts'

interface State {
  id: string
  /** Whether a config of the organization's says how it is made */
  configured: boolean
  /** The weakest isolation that its sessions may have */
  isolationMin: 'any' | 'vm'
  status: z.output<typeof Snapshot>['status']
  version: number | null
  digest: string | null
  sizeBytes: number | null
  builtAt: Date | null
  workers: string[]
}

/**
 * The state of one snapshot as an organization sees it: its own before a shared one.
 *
 * @returns `unknown` where there is neither a template, nor a config, nor a snapshot of that id
 */
export async function findSnapshot(db: Database, orgId: string, id: string): Promise<State | { status: 'unknown' }> {
  // Anything else can't be one, and PostgreSQL would refuse a NUL.
  if (!/^[a-z0-9][a-z0-9-]{0,62}$/.test(id)) return { status: 'unknown' }
  const [state] = await readStates(db, orgId, [id])
  return state && (state.version !== null || state.configured || isTemplate(id)) ? state : { status: 'unknown' }
}

/** The same for the API. @throws SNAPSHOT_NOT_FOUND */
export async function getSnapshot(db: Database, orgId: string, id: string): Promise<z.input<typeof Snapshot>> {
  const state = await findSnapshot(db, orgId, id)
  if (state.status === 'unknown') throw snapshotNotFound(id)
  return describe(state)
}

/** Every snapshot that an organization can use. */
export async function listSnapshots(db: Database, orgId: string): Promise<z.input<typeof Snapshot>[]> {
  const own = await db
    .selectFrom('snapshots')
    .select('id')
    .where('orgId', '=', orgId)
    .union(db.selectFrom('snapshotConfigs').select('id').where('orgId', '=', orgId))
    .execute()
  const ids = new Set([...listTemplates(), ...own].map(({ id }) => id))
  return (await readStates(db, orgId, [...ids].sort())).map(describe)
}

async function readStates(db: Database, orgId: string, ids: string[]): Promise<State[]> {
  const { rows } = await sql<State>`
    select wanted.id, config.id is not null as configured, coalesce(config.isolation_min, 'any') as isolation_min,
      good.version, good.digest, good.size_bytes, good.built_at,
      case when good.digest is not null then 'ready' when last.status in ('queued', 'building') then 'building'
        when last.status = 'failed' then 'failed' else 'missing' end as status,
      array(select w.name from workers w where w.state->'snapshots' ? good.digest order by w.name) as workers
    from unnest(${ids}::text[]) with ordinality as wanted (id, place)
    left join snapshot_configs config on config.org_id = ${orgId} and config.id = wanted.id
    left join lateral (
      select * from snapshots n where n.id = wanted.id and (n.org_id = ${orgId} or n.org_id is null)
      order by n.org_id nulls last limit 1
    ) as good on true
    left join lateral (
      select b.status from builds b where b.snapshot_id = wanted.id and (b.org_id = ${orgId} or b.org_id is null)
        -- An earlier config of this id has had builds that say nothing of this one.
        and (config.id is null or b.created_at >= config.created_at)
      order by b.job_id desc limit 1
    ) as last on true
    order by wanted.place`.execute(db)
  return rows
}

function describe(state: State): z.input<typeof Snapshot> {
  const { id, status, version, digest, sizeBytes, builtAt, workers, isolationMin } = state
  return {
    id,
    status,
    ...(version !== null && { version }),
    ...(digest !== null && { digest }),
    ...(sizeBytes !== null && { sizeBytes }),
    // The memory that microVMs start from isn't made yet.
    isolation: digest === null || isolationMin === 'vm' ? [] : ['process'],
    workers,
    ...(builtAt && { builtAt: builtAt.toISOString() }),
  }
}

export function snapshotNotFound(id: string): ApiError {
  return new ApiError('SNAPSHOT_NOT_FOUND', `Snapshot "${id}" does not exist. ${knownTemplates()}`)
}
