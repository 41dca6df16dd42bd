import { type EgressRecord, egressLimitBytes } from '@paws/api'
import type { Database } from '../database/index.ts'
import { pageOf, readCursor } from '../pages.ts'
import { type SessionRow, sessionSubject } from './session.ts'

/** Events read at once; each has at most some hundred records. */
const batch = 20

/** A record and its place: the event that holds it, and where in it. */
interface Placed {
  seq: number
  index: number
  record: EgressRecord
}

/** What an event of records holds. */
export const egressEvent = (requests: EgressRecord[]) => Buffer.from(JSON.stringify({ requests }))

/** One page of a session's outgoing requests, newest first. @throws VALIDATION_ERROR for a cursor that no page gave */
export async function listEgress(
  db: Database,
  session: SessionRow,
  query: { limit: number; cursor?: string | undefined; decision?: EgressRecord['decision'] | undefined },
): Promise<{ requests: EgressRecord[]; truncated?: boolean; nextCursor?: string }> {
  const { limit, decision } = query
  const cursor = readCursor(query.cursor, (id) => /^\d{1,9}\.\d{1,9}$/.test(id))
  const found: Placed[] = []
  for await (const placed of newestFirst(db, session, cursor)) {
    if (decision === undefined || placed.record.decision === decision) found.push(placed)
    if (found.length > limit) break
  }
  const { entries, ...more } = pageOf(found, limit, ({ seq, index }) => `${seq}.${index}`)
  return {
    requests: entries.map(({ record }) => record),
    ...(session.egressBytes > egressLimitBytes && { truncated: true }),
    ...more,
  }
}

/** @param cursor the place below which they begin */
async function* newestFirst(db: Database, session: SessionRow, cursor: string | undefined): AsyncGenerator<Placed> {
  const [cursorSeq = session.lastSeq + 1, cursorIndex = 0] = cursor?.split('.').map(Number) ?? []
  let below = cursorSeq + 1
  for (;;) {
    const events = await db
      .selectFrom('events')
      .select(['seq', 'data'])
      .where('subject', '=', sessionSubject(session.id))
      .where('type', '=', 'egress')
      .where('seq', '<', below)
      .orderBy('seq', 'desc')
      .limit(batch)
      .execute()
    for (const { seq, data } of events) {
      const { requests } = JSON.parse(data.toString('utf8')) as { requests: EgressRecord[] }
      const end = seq === cursorSeq ? Math.min(cursorIndex, requests.length) : requests.length
      for (let index = end - 1; index >= 0; index--) yield { seq, index, record: requests[index] as EgressRecord }
      below = seq
    }
    if (events.length < batch) return
  }
}
