import type { Transaction } from '../database/index.ts'
import { notify } from './hub.ts'

export interface NewEvent {
  type: string
  /** Raw bytes for output, JSON text for the rest */
  data: Buffer
}

export interface StoredEvent extends NewEvent {
  seq: number
  at: Date
}

/** The channel that followers of a subject (`session:…`, `build:…`) are woken by. */
export const eventChannel = (subject: string) => `events:${subject}`

/**
 * Stores events and wakes who follows them once the transaction is committed.
 * The caller takes their numbers from the subject's own row, whose lock keeps them without gaps and in order.
 *
 * @param firstSeq number of the first of them
 */
export async function appendEvents(
  trx: Transaction,
  subject: string,
  firstSeq: number,
  added: NewEvent[],
): Promise<void> {
  if (added.length === 0) return
  const rows = added.map(({ type, data }, index) => ({ subject, seq: firstSeq + index, type, data }))
  await trx.insertInto('events').values(rows).execute()
  await notify(trx, eventChannel(subject))
}
