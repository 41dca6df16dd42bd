import { sql } from 'kysely'
import type { Database } from '../database/index.ts'
import { notify } from '../events/index.ts'
import { tell, workChannel } from './queue.ts'
import { settle } from './report.ts'

/** After so many workers were lost with it, a build is given up: it may be what kills them. */
const mostTries = 3

/**
 * Gives builds whose lease has ended to another worker, or fails those that too many were lost with.
 *
 * @returns how many
 */
export async function reapBuilds(db: Database): Promise<number> {
  return db.transaction().execute(async (trx) => {
    const lost = await trx
      .selectFrom('builds')
      .selectAll()
      .where('status', '=', 'building')
      .where('leaseExpiresAt', '<', sql<Date>`clock_timestamp()`)
      .limit(100)
      .forUpdate()
      .skipLocked()
      .execute()
    for (const build of lost) {
      const what = `Worker ${build.workerName} was out of contact for longer than its lease`
      if (build.fence >= mostTries) {
        await settle(trx, build, {
          status: 'failed',
          error: `${what}, and ${mostTries} workers were lost with it: the build was given up`,
        })
        continue
      }
      const step = `${what}; waiting for another`
      await trx
        .updateTable('builds')
        .set({ status: 'queued', workerId: null, workerName: null, leaseExpiresAt: null, progress: 0, step })
        .set({ startedAt: null, lastSeq: build.lastSeq + 1 })
        .where('jobId', '=', build.jobId)
        .execute()
      await tell(trx, build.jobId, build.lastSeq + 1, { status: 'queued', progress: 0, step })
    }
    if (lost.length > 0) await notify(trx, workChannel)
    return lost.length
  })
}
