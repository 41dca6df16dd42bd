import type { Session } from '@paws/api'
import { sql } from 'kysely'
import type { z } from 'zod'
import type { Database } from '../database/index.ts'
import { ApiError } from '../errors.ts'
import { isUuid } from '../ids.ts'
import { describe, inlineBytes, type SessionRow, sessionColumns, sessionSubject } from './session.ts'

export const sessionNotFound = (sessionId: string) =>
  new ApiError('SESSION_NOT_FOUND', `Session ${sessionId} does not exist`)

/** @throws SESSION_NOT_FOUND, also for another organization's and for what is no UUID */
export async function findSession(db: Database, orgId: string, sessionId: string): Promise<SessionRow> {
  const row =
    isUuid(sessionId) &&
    (await db
      .selectFrom('sessions')
      .select(sessionColumns)
      .where('id', '=', sessionId)
      .where('orgId', '=', orgId)
      .executeTakeFirst())
  if (!row) throw sessionNotFound(sessionId)
  return row
}

/** A session with the last MiB of each stream, so far. @throws SESSION_NOT_FOUND */
export async function getSession(db: Database, orgId: string, sessionId: string): Promise<z.input<typeof Session>> {
  const row = await findSession(db, orgId, sessionId)
  const { stdout, stderr } = await readTails(db, row)
  return { ...describe(row), stdout, stderr }
}

async function readTails(db: Database, row: SessionRow): Promise<{ stdout: string; stderr: string }> {
  if (row.stdoutBytes === 0 && row.stderrBytes === 0) return { stdout: '', stderr: '' }
  // Of rows that are read past, only the lengths are looked at, which stand in the row itself.
  const { rows } = await sql<{ type: string; data: Buffer }>`
    select events.type, events.data
    from events join (
      select seq, sum(octet_length(data)) over (partition by type order by seq desc) - octet_length(data) as behind
      from events where subject = ${sessionSubject(row.id)} and type in ('stdout', 'stderr')
    ) as measured using (seq)
    where events.subject = ${sessionSubject(row.id)} and measured.behind < ${inlineBytes}
    order by events.seq`.execute(db)
  const tail = (stream: string) => tailText(rows.filter(({ type }) => type === stream).map(({ data }) => data))
  return { stdout: tail('stdout'), stderr: tail('stderr') }
}

/** The last MiB as text. A character cut at the beginning is left out; other bytes that aren't UTF-8 become U+FFFD. */
function tailText(pieces: Buffer[]): string {
  const bytes = Buffer.concat(pieces)
  if (bytes.length <= inlineBytes) return bytes.toString('utf8')
  let start = bytes.length - inlineBytes
  for (let skipped = 0; skipped < 3 && ((bytes[start] ?? 0) & 0xc0) === 0x80; skipped++) start++
  return bytes.toString('utf8', start)
}
