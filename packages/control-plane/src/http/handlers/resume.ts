import { ApiError } from '../../errors.ts'

/** Number of the last event a reader has seen: `Last-Event-ID`, else `?after=`, else none. @throws VALIDATION_ERROR */
export function resumeAfter({ headers, query }: { headers: Headers; query: { after?: number | undefined } }): number {
  const header = headers.get('last-event-id')
  if (header === null) return query.after ?? 0
  const seen = Number(header)
  // Events are numbered by an int of PostgreSQL.
  if (/^\d+$/.test(header) && seen < 2 ** 31) return seen
  const message = 'Last-Event-ID is the id of an event: a whole number'
  throw new ApiError('VALIDATION_ERROR', message, { details: [{ path: 'Last-Event-ID', message }] })
}
