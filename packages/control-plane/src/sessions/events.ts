import type { Blobs } from '../blobs/index.ts'
import type { Database } from '../database/index.ts'
import { type Events, followEvents } from '../events/index.ts'
import { withArchived } from './archive.ts'
import { type SessionRow, sessionSubject } from './session.ts'

/** The events of a session, those so far and then each as it is committed, up to `done`. */
export async function* streamEvents(
  services: { db: Database; events: Events; blobs: Blobs },
  session: SessionRow,
  options: { after: number; signal: AbortSignal },
): AsyncGenerator<{ id: number; event: string; data: unknown }, void, void> {
  const { after, signal } = options
  // Whoever has seen the last event of an ended session waits for nothing.
  if (session.completedAt && after >= session.lastSeq) return
  const stored = followEvents(services.db, services.events, sessionSubject(session.id), {
    after,
    signal,
    isEnd: (event) => event.type === 'done',
  })
  for await (const { seq, type, data } of withArchived(stored, services.blobs, session.id, after)) {
    const text = data.toString('utf8')
    yield { id: seq, event: type, data: type === 'stdout' || type === 'stderr' ? { text } : JSON.parse(text) }
  }
}
