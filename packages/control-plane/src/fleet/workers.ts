import { type Fleet, type Worker, WorkerState, type WorkerStatus, workerCan } from '@paws/api'
import { sql } from 'kysely'
import type { z } from 'zod'
import type { Database } from '../database/index.ts'
import { ApiError, invalidState } from '../errors.ts'

/** A worker that has not been heard of for longer is unhealthy. Heartbeats come every few seconds. */
const silentMs = 30_000

interface WorkerRow {
  id: string
  name: string
  state: unknown
  draining: boolean
  silent: boolean
  lastSeenAt: Date
  running: number
}

const selectWorkers = sql`
  select id, name, state, draining, last_seen_at, last_seen_at < now() - ${silentMs}::float8 * interval '1 ms' as silent,
    (select count(*) from sessions where worker_id = workers.id and status = 'running')::int as running
  from workers`

/** All workers by name. */
export async function listWorkers(db: Database): Promise<z.input<typeof Worker>[]> {
  const { rows } = await sql<WorkerRow>`${selectWorkers} order by name`.execute(db)
  return rows.map(describe)
}

/** @throws WORKER_NOT_FOUND */
export async function getWorker(db: Database, name: string): Promise<z.input<typeof Worker>> {
  return describe(await find(db, name))
}

/** Gives a worker no new sessions. @throws WORKER_NOT_FOUND, INVALID_STATE when it is draining already */
export function drainWorker(db: Database, name: string): Promise<z.input<typeof Worker>> {
  return setDraining(db, name, true)
}

/** Gives it new ones again. @throws WORKER_NOT_FOUND, INVALID_STATE when it isn't draining */
export function undrainWorker(db: Database, name: string): Promise<z.input<typeof Worker>> {
  return setDraining(db, name, false)
}

async function setDraining(db: Database, name: string, draining: boolean): Promise<z.input<typeof Worker>> {
  const worker = await find(db, name)
  if (worker.draining === draining) {
    const [state, allowed] = draining ? ['draining already', workerCan.drain] : ['not draining', workerCan.undrain]
    throw invalidState(`Worker ${name} is ${state}`, statusOf(worker), allowed)
  }
  await db.updateTable('workers').set({ draining }).where('id', '=', worker.id).execute()
  return describe({ ...worker, draining })
}

/** Removes a worker, and its credential with it. What still runs there fails once its lease has ended. */
export async function removeWorker(db: Database, name: string): Promise<void> {
  const { numDeletedRows } = await db.deleteFrom('workers').where('name', '=', name).executeTakeFirst()
  if (numDeletedRows === 0n) throw notFound(name)
}

/** Numbers of the whole fleet, all organizations together. */
export async function getFleet(db: Database): Promise<z.input<typeof Fleet>> {
  const workers = await listWorkers(db)
  const { rows } = await sql<{ pending: number; running: number }>`
    select (select count(*) from sessions where status = 'pending')::int as pending,
      (select count(*) from sessions where status = 'running')::int as running`.execute(db)
  const { pending = 0, running = 0 } = rows[0] ?? {}
  return {
    totalWorkers: workers.length,
    healthyWorkers: workers.filter(({ status }) => status === 'healthy').length,
    totalCapacity: workers.reduce((sum, { capacity }) => sum + capacity.max, 0),
    usedCapacity: workers.reduce((sum, { capacity }) => sum + capacity.running, 0),
    queuedSessions: pending,
    activeDaemons: 0,
    activeSessions: running,
  }
}

async function find(db: Database, name: string): Promise<WorkerRow> {
  const { rows } = await sql<WorkerRow>`${selectWorkers} where name = ${name}`.execute(db)
  if (!rows[0]) throw notFound(name)
  return rows[0]
}

const notFound = (name: string) => new ApiError('WORKER_NOT_FOUND', `Worker "${name}" does not exist`)

function statusOf({ silent, draining }: WorkerRow): WorkerStatus {
  if (silent) return 'unhealthy'
  return draining ? 'draining' : 'healthy'
}

function describe(row: WorkerRow): z.input<typeof Worker> {
  const { isolation, limitations, maxSessions, resources, snapshots, version } = WorkerState.parse(row.state)
  return {
    name: row.name,
    status: statusOf(row),
    capacity: { max: maxSessions, running: row.running },
    resources,
    isolation,
    limitations,
    snapshots,
    version,
    lastSeenAt: row.lastSeenAt.toISOString(),
  }
}
