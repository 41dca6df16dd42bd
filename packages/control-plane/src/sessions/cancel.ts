import { sessionEnded } from '@paws/api'
import type { Logger } from 'pino'
import type { Database } from '../database/index.ts'
import { ApiError } from '../errors.ts'
import { type Events, eventChannel } from '../events/index.ts'
import { findSession } from './get.ts'
import { sessionSubject } from './session.ts'
import { type Aftermath, lockSession, settle } from './settle.ts'

export interface CancelServices extends Aftermath {
  events: Events
  log: Logger
  /** Tells the worker at once; its heartbeat brings the same wish later */
  tellWorker: (workerId: string, sessionId: string) => Promise<unknown>
  /** How long a running session's end is waited for; 30 s unless set */
  waitMs?: number
  /** Aborts when nobody waits for the answer any more; the wish is kept */
  signal?: AbortSignal
}

type Ended = (typeof sessionEnded)[number]
const hasEnded = (status: string): status is Ended => sessionEnded.some((ended) => ended === status)

/**
 * Cancels a session and answers once it has ended: a pending one at once, a running one when its worker has reported
 * that every process is gone. One that had ended keeps its status.
 *
 * @throws SESSION_NOT_FOUND; WORKER_UNREACHABLE when the worker has not reported in time, the wish being kept
 */
export async function cancelSession(
  db: Database,
  services: CancelServices,
  orgId: string,
  sessionId: string,
): Promise<{ sessionId: string; status: Ended }> {
  const { status: before } = await findSession(db, orgId, sessionId)
  if (hasEnded(before)) return { sessionId, status: before }
  const { waitMs = 30_000 } = services
  const deadline = Date.now() + waitMs
  // Subscribed before the wish is written, so that the end can't slip by.
  const ended = services.events.subscribe(eventChannel(sessionSubject(sessionId)))
  try {
    let session = await wish(db, services, sessionId)
    if (!hasEnded(session.status) && session.workerId) {
      services.tellWorker(session.workerId, sessionId).catch((error: unknown) => {
        services.log.info({ err: error, sessionId }, 'the worker will hear of the cancelling by its heartbeat')
      })
    }
    while (!hasEnded(session.status)) {
      const left = deadline - Date.now()
      if (left <= 0 || services.signal?.aborted) throw unreachable(session.workerName, sessionId, waitMs)
      await ended.wait(Math.min(left, 5000), services.signal)
      session = await findSession(db, orgId, sessionId)
    }
    return { sessionId, status: session.status as Ended }
  } finally {
    ended.close()
  }
}

async function wish(db: Database, services: CancelServices, sessionId: string) {
  return db.transaction().execute(async (trx) => {
    const session = await lockSession(trx, sessionId)
    if (!session) throw new Error(`Session ${sessionId} vanished`)
    const status = session.status
    if (status === 'pending') return settle(trx, services, session, { status: 'cancelled' })
    if (status === 'running' && !session.cancelRequestedAt) {
      await trx.updateTable('sessions').set({ cancelRequestedAt: session.now }).where('id', '=', sessionId).execute()
    }
    return session
  })
}

const unreachable = (worker: string | null, sessionId: string, waitMs: number) =>
  new ApiError(
    'WORKER_UNREACHABLE',
    `Worker ${worker ?? '(removed)'} has not confirmed within ${waitMs / 1000} s that session ${sessionId} is gone. ` +
      'The cancelling is recorded: it is stopped as soon as its worker hears of it, at the latest when its lease ends.',
    { retryAfterMs: 5000 },
  )
