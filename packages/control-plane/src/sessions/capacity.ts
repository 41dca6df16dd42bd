import { type RawBuilder, sql } from 'kysely'
import type { Database } from '../database/index.ts'
import { ApiError } from '../errors.ts'

/** Resources of a session that asks for none; under the process driver they fit any worker, being only limits there. */
const defaults = { vcpus: 2, memoryMB: 4096 }

/** SQL: the most that a session on a worker, a row of the named table, may ask for. Creating and claiming share it. */
export function largest(workers: string, resource: 'vcpus' | 'memoryMB'): RawBuilder<number> {
  const state = sql.raw(`${workers}.state`)
  return sql<number>`greatest((${state}->'resources'->>${sql.lit(resource)})::int,
    case ${state}->>'isolation' when 'process' then ${sql.lit(defaults[resource])} else 0 end)`
}

/** @throws CAPACITY_EXHAUSTED with the reason, when no enrolled worker, connected or not, could ever run it */
export async function assertRunnable(
  db: Database,
  request: { resources: { vcpus: number; memoryMB: number }; isolation: 'any' | 'vm' },
): Promise<void> {
  const { vcpus, memoryMB } = request.resources
  const { rows } = await sql<{ workers: number; vms: number; vcpus: number; memoryMb: number; fitting: boolean }>`
    select count(*)::int as workers,
      (count(*) filter (where state->>'isolation' <> 'process'))::int as vms,
      max((state->'resources'->>'vcpus')::int) as vcpus,
      max((state->'resources'->>'memoryMB')::int) as memory_mb,
      coalesce(bool_or(${vcpus} <= ${largest('workers', 'vcpus')} and ${memoryMB} <= ${largest('workers', 'memoryMB')}
        and (${request.isolation} = 'any' or state->>'isolation' <> 'process')), false) as fitting
    from workers`.execute(db)
  const [fleet] = rows
  if (!fleet || fleet.fitting) return
  throw new ApiError('CAPACITY_EXHAUSTED', reason(fleet), { retryAfterMs: 60_000 })

  function reason(fleet: { workers: number; vms: number; vcpus: number; memoryMb: number }): string {
    if (fleet.workers === 0) return 'No worker is enrolled that could run it: make a token and join one.'
    if (request.isolation === 'vm' && fleet.vms === 0) {
      return 'No worker can run microVMs: ask for isolation "any", or join a worker whose host can.'
    }
    return (
      `No worker is large enough for ${vcpus} vcpus and ${memoryMB} MB of memory` +
      `${request.isolation === 'vm' ? ' in a microVM' : ''}: the largest have ${fleet.vcpus} vcpus and ${fleet.memoryMb} MB.`
    )
  }
}
