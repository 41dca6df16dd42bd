import type { Database } from '../database/index.ts'
import { type Events, followEvents } from '../events/index.ts'
import type { BuildRow } from './build.ts'
import { buildSubject } from './queue.ts'

/** The events of a build, those so far and then each as it is committed, up to `done`. */
export async function* streamBuild(
  services: { db: Database; events: Events },
  build: BuildRow,
  options: { after: number; signal: AbortSignal },
): AsyncGenerator<{ id: number; event: string; data: unknown }, void, void> {
  // Whoever has seen the last event of an ended build waits for nothing.
  if (build.completedAt && options.after >= build.lastSeq) return
  const stored = followEvents(services.db, services.events, buildSubject(build.jobId), {
    ...options,
    isEnd: ({ type }) => type === 'done',
  })
  for await (const { seq, type, data } of stored) {
    const text = data.toString('utf8')
    yield { id: seq, event: type, data: type === 'log' ? { text } : JSON.parse(text) }
  }
}
