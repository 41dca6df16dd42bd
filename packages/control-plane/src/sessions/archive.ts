import { Readable } from 'node:stream'
import { sql } from 'kysely'
import type { Logger } from 'pino'
import type { Blobs } from '../blobs/index.ts'
import type { Database } from '../database/index.ts'
import type { StoredEvent } from '../events/index.ts'
import type { Jobs } from '../jobs/index.ts'
import { inlineBytes, sessionSubject } from './session.ts'

/** Jobs that move a long output away. */
export const archiveQueue = 'archive-session'

const archiveName = (sessionId: string) => `sessions/${sessionId}/output`

/*
 * The output of an ended session, but for the last MiB of each stream, lies in one blob of records, in their order:
 *   4 bytes  number of the event, big-endian
 *   1 byte   1 for stdout, 2 for stderr
 *   4 bytes  length, big-endian
 *   n bytes  the output
 * So events keep their numbers, and the row's numbers, which count without gaps, say what is to be looked for here.
 */
const headerBytes = 9
const streams = ['stdout', 'stderr'] as const

type OutputEvent = Pick<StoredEvent, 'seq' | 'type' | 'data'>

/** Takes on the jobs that `settle` queues. */
export async function startArchiving(db: Database, blobs: Blobs, jobs: Jobs, log: Logger): Promise<void> {
  await jobs.work<{ sessionId: string }>(archiveQueue, {}, async ({ sessionId }) => {
    const moved = await archiveSession(db, blobs, sessionId)
    log.info({ sessionId, events: moved }, 'moved a long output to blobs')
  })
}

/**
 * Moves the beginning of a long output from the database into a blob. May be repeated: the blob is written whole
 * before the rows go, in the same words each time.
 *
 * @returns how many events
 */
export async function archiveSession(db: Database, blobs: Blobs, sessionId: string): Promise<number> {
  const row = await db.selectFrom('sessions').select('archivedAt').where('id', '=', sessionId).executeTakeFirst()
  if (!row || row.archivedAt) return 0
  const seqs = await movable(db, sessionId)
  if (seqs.length > 0) await blobs.put(archiveName(sessionId), Readable.from(records(db, sessionId, seqs)))
  await db.transaction().execute(async (trx) => {
    await sql`delete from events where subject = ${sessionSubject(sessionId)} and seq = any(${seqs}::int[])`.execute(
      trx,
    )
    await trx.updateTable('sessions').set({ archivedAt: sql`now()` }).where('id', '=', sessionId).execute()
  })
  return seqs.length
}

/** Numbers of the output events that lie wholly before the last MiB of their stream. */
async function movable(db: Database, sessionId: string): Promise<number[]> {
  const { rows } = await sql<{ seq: number }>`
    select seq from (
      select seq, sum(octet_length(data)) over (partition by type order by seq desc) - octet_length(data) as behind
      from events where subject = ${sessionSubject(sessionId)} and type in ('stdout', 'stderr')
    ) as measured
    where behind >= ${inlineBytes} order by seq`.execute(db)
  return rows.map(({ seq }) => seq)
}

async function* records(db: Database, sessionId: string, seqs: number[]): AsyncGenerator<Buffer> {
  for (let from = 0; from < seqs.length; from += 50) {
    const rows = await db
      .selectFrom('events')
      .select(['seq', 'type', 'data'])
      .where('subject', '=', sessionSubject(sessionId))
      .where('seq', 'in', seqs.slice(from, from + 50))
      .orderBy('seq')
      .execute()
    for (const { seq, type, data } of rows) {
      const header = Buffer.alloc(headerBytes)
      header.writeUInt32BE(seq, 0)
      header[4] = streams.indexOf(type as (typeof streams)[number]) + 1
      header.writeUInt32BE(data.length, 5)
      yield Buffer.concat([header, data])
    }
  }
}

/** The archived events of a session in order; none if nothing was archived. */
async function* readArchive(blobs: Blobs, sessionId: string): AsyncGenerator<OutputEvent, void, void> {
  const blob = await blobs.get(archiveName(sessionId))
  if (!blob) return
  let rest: Buffer = Buffer.alloc(0)
  for await (const piece of blob.content as AsyncIterable<Buffer>) {
    rest = rest.length > 0 ? Buffer.concat([rest, piece]) : piece
    while (rest.length >= headerBytes) {
      const size = rest.readUInt32BE(5)
      if (rest.length < headerBytes + size) break
      const type = streams[(rest[4] ?? 0) - 1]
      if (!type) throw new Error(`The archived output of session ${sessionId} is damaged`)
      yield { seq: rest.readUInt32BE(0), type, data: rest.subarray(headerBytes, headerBytes + size) }
      rest = rest.subarray(headerBytes + size)
    }
  }
}

/**
 * Fills what the archive has taken out of a run of events, also while it is being read: a gap in the numbers is one.
 *
 * @param after number of the last event before the first of them
 */
export async function* withArchived<T extends OutputEvent>(
  stored: AsyncIterable<T>,
  blobs: Blobs,
  sessionId: string,
  after: number,
): AsyncGenerator<OutputEvent, void, void> {
  let archive: AsyncGenerator<OutputEvent, void, void> | undefined
  let ahead: OutputEvent | undefined
  let last = after
  try {
    for await (const event of stored) {
      while (last + 1 < event.seq) {
        archive ??= readArchive(blobs, sessionId)
        while (!ahead || ahead.seq <= last) {
          const next = await archive.next()
          if (next.done) break
          ahead = next.value
        }
        if (!ahead || ahead.seq <= last || ahead.seq >= event.seq) break
        last = ahead.seq
        yield ahead
      }
      last = event.seq
      yield event
    }
  } finally {
    await archive?.return()
  }
}
