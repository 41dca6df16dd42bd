import type { Database } from '../database/index.ts'
import { eventChannel, type StoredEvent } from './append.ts'
import type { Events } from './hub.ts'

/** Most events read at once: a chunk of output is at most some ten KB. */
const batch = 200
/** Wake-ups aren't lost, but a look now and then costs little and outlives any mistake. */
const lookAgainMs = 15_000

export interface FollowOptions {
  /** Number of the last event already seen; 0 for none */
  after: number
  /** Whether nothing can come after this event */
  isEnd: (event: StoredEvent) => boolean
  /** Ends it early */
  signal: AbortSignal
}

/** The events of a subject in order, those stored so far and then each as it is committed, until its end. */
export async function* followEvents(
  db: Database,
  events: Events,
  subject: string,
  options: FollowOptions,
): AsyncGenerator<StoredEvent, void, void> {
  // Subscribed before the first read: what is committed in between wakes the next wait.
  const subscription = events.subscribe(eventChannel(subject))
  let last = options.after
  try {
    while (!options.signal.aborted) {
      const rows = await readEvents(db, subject, last)
      for (const row of rows) {
        yield row
        last = row.seq
        if (options.isEnd(row)) return
      }
      if (rows.length < batch) await subscription.wait(lookAgainMs, options.signal)
    }
  } finally {
    subscription.close()
  }
}

function readEvents(db: Database, subject: string, after: number): Promise<StoredEvent[]> {
  return db
    .selectFrom('events')
    .select(['seq', 'type', 'data', 'at'])
    .where('subject', '=', subject)
    .where('seq', '>', after)
    .orderBy('seq')
    .limit(batch)
    .execute()
}
