import { type Outcome, sessionCan } from '@paws/api'
import type { z } from 'zod'
import type { Database } from '../database/index.ts'
import { ApiError } from '../errors.ts'
import { append, type Chunk, type Lease, lastStored, leaseLost } from './output.ts'
import { type Aftermath, lockSession, settle } from './settle.ts'

/**
 * Settles a session, once, with its last pieces of output. The same report again, from the same lease, is acknowledged
 * again and changes nothing.
 *
 * @param first number of the first piece
 * @returns the status that it has ended with
 * @throws SESSION_NOT_FOUND; LEASE_LOST when the lease is no longer the worker's; CONFLICT when pieces are missing
 */
export async function finishSession(
  db: Database,
  aftermath: Aftermath,
  lease: Lease,
  report: { outcome: z.output<typeof Outcome>; first: number; chunks: Chunk[] },
): Promise<{ status: string }> {
  return db.transaction().execute(async (trx) => {
    const before = await append(trx, lease, report.first, report.chunks)
    if (!before) throw new ApiError('SESSION_NOT_FOUND', `Session ${lease.sessionId} does not exist`)
    if (!before.held) throw leaseLost(lease)
    // Whoever else ends a running session takes the lease away: under this one, it ended by this report.
    if (!sessionCan.finish.some((status) => status === before.status)) return { status: before.status }
    lastStored(before, report.first)
    const session = await lockSession(trx, lease.sessionId)
    if (!session) throw new Error(`Session ${lease.sessionId} vanished under its lock`)
    const { output, ...outcome } = report.outcome
    const ended = await settle(trx, aftermath, session, {
      ...outcome,
      ...(output !== undefined && { output: JSON.stringify(output) }),
      ...(outcome.error && { reason: outcome.error.message }),
    })
    return { status: ended.status }
  })
}
