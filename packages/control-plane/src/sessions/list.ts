import type { SessionSummary } from '@paws/api'
import { sql } from 'kysely'
import type { z } from 'zod'
import type { Database } from '../database/index.ts'
import { ApiError } from '../errors.ts'
import { isUuid } from '../ids.ts'
import { pageOf, readCursor } from '../pages.ts'
import { labelFilter } from './labels.ts'
import { sessionColumns, summarize } from './session.ts'

/** Most `metadata.KEY` filters of one list. */
const mostFilters = 10
const metadataPrefix = 'metadata.'

export interface ListQuery {
  limit: number
  cursor?: string | undefined
  status?: string | undefined
  /** `metadata.KEY` filters; any other key is refused */
  [key: string]: string | number | undefined
}

/** One page, newest first. @throws VALIDATION_ERROR for an unknown filter or a cursor that no page gave */
export async function listSessions(
  db: Database,
  orgId: string,
  query: ListQuery,
): Promise<{ sessions: z.input<typeof SessionSummary>[]; nextCursor?: string }> {
  const { limit, cursor, status, ...others } = query
  const filters = metadataFilters(others)
  const below = readCursor(cursor, isUuid)
  const rows = await db
    .selectFrom('sessions')
    .select(sessionColumns)
    .where('orgId', '=', orgId)
    .$if(status !== undefined, (q) => q.where('status', '=', String(status)))
    .$if(filters.length > 0, (q) => q.where(sql<boolean>`labels @> ${labelFilter(filters)}::jsonb`))
    .$if(below !== undefined, (q) => q.where('id', '<', String(below)))
    .orderBy('id', 'desc')
    .limit(limit + 1)
    .execute()
  const { entries, ...more } = pageOf(rows, limit, (row) => row.id)
  return { sessions: entries.map(summarize), ...more }
}

function metadataFilters(query: Record<string, unknown>): [string, string][] {
  const filters = Object.entries(query).filter(([, value]) => value !== undefined)
  for (const [key] of filters) {
    if (!key.startsWith(metadataPrefix))
      throw invalid(key, `There is no filter "${key}"; metadata is metadata.KEY=VALUE`)
  }
  if (filters.length > mostFilters) throw invalid('metadata', `At most ${mostFilters} metadata filters`)
  return filters.map(([key, value]) => [key.slice(metadataPrefix.length), String(value)])
}

const invalid = (path: string, message: string) =>
  new ApiError('VALIDATION_ERROR', `The query is wrong: ${message}`, { details: [{ path, message }] })
