import type { Database } from '../database/index.ts'
import type { Lease } from './output.ts'
import { type Aftermath, lockSession, settle } from './settle.ts'

/** Fails a session that was claimed and can't be handed to its worker. Under a lease that has ended it changes nothing. */
export async function failClaimed(
  db: Database,
  aftermath: Aftermath,
  { sessionId, workerId, fence }: Lease,
  error: { code: string; message: string },
): Promise<void> {
  await db.transaction().execute(async (trx) => {
    const session = await lockSession(trx, sessionId)
    if (session?.status !== 'running' || session.workerId !== workerId || session.fence !== fence) return
    const status = session.cancelRequestedAt ? 'cancelled' : 'failed'
    await settle(trx, aftermath, session, { status, reason: error.message, error, revoke: true })
  })
}
