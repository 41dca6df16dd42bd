import { cutMarker, egressLimitBytes, streamLimitBytes } from '@paws/api'
import { sql } from 'kysely'
import type { Database } from '../database/index.ts'
import { ApiError } from '../errors.ts'
import { eventChannel, notification } from '../events/index.ts'
import { sessionSubject } from './session.ts'

/** A session held by a worker; the fence tells its claims apart. */
export interface Lease {
  sessionId: string
  workerId: string
  fence: number
}

export interface Chunk {
  /** `egress`: an event of records, kept whole or not at all, beside the limits of output */
  stream: 'stdout' | 'stderr' | 'egress'
  data: Buffer
}

/**
 * Stores numbered pieces of output and wakes who follows, in one statement. Pieces already stored are passed over.
 *
 * @param first number of the first piece
 * @returns the number of the last piece stored, now or before
 * @throws SESSION_NOT_FOUND; LEASE_LOST unless the session runs under this very lease; CONFLICT when pieces are missing
 */
export async function storeOutput(db: Database, lease: Lease, first: number, chunks: Chunk[]): Promise<number> {
  const answer = await append(db, lease, first, chunks)
  if (!answer) throw new ApiError('SESSION_NOT_FOUND', `Session ${lease.sessionId} does not exist`)
  if (!answer.held || answer.status !== 'running') throw leaseLost(lease)
  return lastStored(answer, first)
}

export const leaseLost = (lease: Lease) =>
  new ApiError(
    'LEASE_LOST',
    `The lease ${lease.fence} on session ${lease.sessionId} has ended: stop it, report nothing`,
  )

export function lastStored(answer: { lastChunk: number; stored: number | null }, first: number): number {
  if (answer.stored !== null) return answer.stored
  if (first <= answer.lastChunk + 1) return answer.lastChunk
  throw new ApiError('CONFLICT', `Piece ${answer.lastChunk + 1} of the output comes next, not ${first}`, {
    details: [{ message: `Send from piece ${answer.lastChunk + 1} on`, expected: answer.lastChunk + 1 }],
  })
}

export interface Appended {
  status: string
  /** Whether worker and fence are those of the row */
  held: boolean
  /** Before this statement */
  lastChunk: number
  /** Last piece stored by it; null if it stored none */
  stored: number | null
}

/**
 * The statement itself; it locks the session's row. Numbers, limits and the lease are judged on the locked row, in the
 * statement that writes, so neither two reports nor a lost lease can slip in between.
 */
export async function append(
  db: Database,
  { sessionId, workerId, fence }: Lease,
  first: number,
  chunks: Chunk[],
): Promise<Appended | undefined> {
  const subject = sessionSubject(sessionId)
  // One parameter for all bytes: an array of bytea would travel as hex, twice as long.
  const bytes = Buffer.concat(chunks.map(({ data }) => data))
  const streams = chunks.map(({ stream }) => stream)
  const sizes = chunks.map(({ data }) => data.length)
  // Positions count from 1 in SQL.
  let next = 1
  const offsets = sizes.map((size) => {
    next += size
    return next - size
  })
  const { rows } = await sql<Appended>`
    with held as materialized (
      select id, status, last_seq, last_chunk, stdout_bytes, stderr_bytes, egress_bytes,
        coalesce(worker_id = ${workerId} and fence = ${fence}, false) as held
      from sessions where id = ${sessionId} for update
    ), added as (
      select piece.stream, piece.size, piece.start, ${first}::int + piece.place::int - 1 as number
      from held, unnest(${streams}::text[], ${sizes}::int[], ${offsets}::int[])
        with ordinality as piece (stream, size, start, place)
      where held.held and held.status = 'running' and ${first}::int <= held.last_chunk + 1
        and ${first}::int + piece.place - 1 > held.last_chunk
    ), measured as (
      select added.*, case added.stream when 'stdout' then held.stdout_bytes when 'stderr' then held.stderr_bytes
        else held.egress_bytes end + sum(added.size) over (partition by added.stream order by added.number) as total
      from added, held
    ), kept as (
      select stream, row_number() over (order by number) as place,
        case when stream = 'egress' or total <= ${streamLimitBytes}::int then substring(${bytes}::bytea from start for size)
          else substring(${bytes}::bytea from start for (${streamLimitBytes}::int - (total - size))::int)
            || convert_to(${cutMarker}, 'UTF8')
        end as data
      from measured where size > 0 and case stream when 'egress' then total <= ${egressLimitBytes}::int
        else total - size <= ${streamLimitBytes}::int end
    ), written as (
      insert into events (subject, seq, type, data)
      select ${subject}, held.last_seq + kept.place, kept.stream, kept.data from kept, held
    ), moved as (
      update sessions set
        last_chunk = (select max(number) from added),
        last_seq = held.last_seq + (select count(*) from kept),
        stdout_bytes = coalesce((select max(total) from measured where stream = 'stdout'), held.stdout_bytes),
        stderr_bytes = coalesce((select max(total) from measured where stream = 'stderr'), held.stderr_bytes),
        egress_bytes = coalesce((select max(total) from measured where stream = 'egress'), held.egress_bytes)
      from held where sessions.id = held.id and exists (select from added)
      returning sessions.last_chunk as stored
    )
    select held.status, held.held, held.last_chunk, moved.stored,
      case when moved.stored is not null then ${notification(eventChannel(subject))} end as told
    from held left join moved on true`.execute(db)
  return rows[0]
}
