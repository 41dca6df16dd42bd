import { sql } from 'kysely'
import type { Database } from '../database/index.ts'

/**
 * The last of what a subject's events of some types hold, each type's as one text.
 *
 * @param mostBytes how much of each. A character that this cuts is left out; what isn't UTF-8 becomes U+FFFD
 */
export async function readTails<T extends string>(
  db: Database,
  subject: string,
  types: readonly T[],
  mostBytes: number,
): Promise<Record<T, string>> {
  // Of rows that are read past, only the lengths are looked at, which stand in the row itself.
  const { rows } = await sql<{ type: string; data: Buffer }>`
    select events.type, events.data
    from events join (
      select seq, sum(octet_length(data)) over (partition by type order by seq desc) - octet_length(data) as behind
      from events where subject = ${subject} and type = any(${types}::text[])
    ) as measured using (seq)
    where events.subject = ${subject} and measured.behind < ${mostBytes}
    order by events.seq`.execute(db)
  const tail = (wanted: T) => {
    const pieces = rows.filter(({ type }) => type === wanted).map(({ data }) => data)
    return tailText(Buffer.concat(pieces), mostBytes)
  }
  return Object.fromEntries(types.map((type) => [type, tail(type)])) as Record<T, string>
}

function tailText(bytes: Buffer, mostBytes: number): string {
  let start = Math.max(0, bytes.length - mostBytes)
  if (start === 0) return bytes.toString('utf8')
  for (let skipped = 0; skipped < 3 && ((bytes[start] ?? 0) & 0xc0) === 0x80; skipped++) start++
  return bytes.toString('utf8', start)
}
