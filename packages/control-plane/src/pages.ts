import { ApiError } from './errors.ts'

/** One page of a list, under the name that its endpoint gives the entries. */
export interface Page<T> {
  entries: T[]
  nextCursor?: string
}

/**
 * Cuts a page out of rows that were asked for with one more than the limit: the one too many says that there is more.
 *
 * @param idOf what the list is ordered by, downwards
 */
export function pageOf<T>(rows: T[], limit: number, idOf: (row: T) => string): Page<T> {
  const entries = rows.slice(0, limit)
  const last = entries.at(-1)
  if (rows.length <= limit || last === undefined) return { entries }
  return { entries, nextCursor: Buffer.from(idOf(last)).toString('base64url') }
}

/**
 * The id that a cursor stands for: the page begins below it.
 *
 * @throws VALIDATION_ERROR when it isn't one that a list of this kind gave
 */
export function readCursor(cursor: string | undefined, isId: (id: string) => boolean): string | undefined {
  if (cursor === undefined) return undefined
  const id = Buffer.from(cursor, 'base64url').toString()
  if (isId(id) && Buffer.from(id).toString('base64url') === cursor) return id
  const message = 'Not a cursor of this list: give the "nextCursor" of the page before'
  throw new ApiError('VALIDATION_ERROR', `cursor: ${message}`, { details: [{ path: 'cursor', message }] })
}
