import { sql } from 'kysely'
import type { Blobs } from '../blobs/index.ts'
import type { Database } from '../database/index.ts'
import { withArchived } from './archive.ts'
import { type SessionRow, sessionSubject } from './session.ts'

/** Events read at once; a chunk of output has at most some ten KB. */
const batch = 50

/** One stream of a session as it was written, so far. */
export async function* readLogs(
  db: Database,
  blobs: Blobs,
  session: SessionRow,
  stream: 'stdout' | 'stderr',
): AsyncGenerator<Buffer, void, void> {
  if ((stream === 'stdout' ? session.stdoutBytes : session.stderrBytes) === 0) return
  for await (const { type, data } of withArchived(stored(db, session, stream), blobs, session.id, 0)) {
    if (type === stream) yield data
  }
}

// All events, so that no number is missing but those in the archive; the bytes only of those that are asked for.
async function* stored(db: Database, session: SessionRow, stream: string) {
  let last = 0
  while (last < session.lastSeq) {
    const { rows } = await sql<{ seq: number; type: string; data: Buffer }>`
      select seq, type, case type when ${stream} then data else '' end as data
      from events where subject = ${sessionSubject(session.id)} and seq > ${last} and seq <= ${session.lastSeq}
      order by seq limit ${batch}`.execute(db)
    yield* rows
    last = rows.at(-1)?.seq ?? session.lastSeq
  }
}
