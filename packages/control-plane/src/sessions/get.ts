import type { Session } from '@paws/api'
import type { z } from 'zod'
import type { Database } from '../database/index.ts'
import { ApiError } from '../errors.ts'
import { readTails } from '../events/index.ts'
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
  if (row.stdoutBytes === 0 && row.stderrBytes === 0) return { ...describe(row), stdout: '', stderr: '' }
  return { ...describe(row), ...(await readTails(db, sessionSubject(row.id), ['stdout', 'stderr'], inlineBytes)) }
}
