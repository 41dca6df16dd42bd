import { sql } from 'kysely'
import type { Database, Transaction } from '../database/index.ts'
import { appendEvents, notify } from '../events/index.ts'
import { newId } from '../ids.ts'
import { snapshotNotFound } from './snapshot.ts'
import { baseOf, isTemplate } from './templates.ts'

/** Whose events these are, in the table of events. */
export const buildSubject = (jobId: string) => `build:${jobId}`
/** Wakes the waiting claims of the fleet. */
export const workChannel = 'work'

/** A config as a build holds it: as it was when the build was asked for. JSON text in the row. */
export interface FrozenConfig {
  setup: string
  requiredDomains: string[]
  resources: { vcpus: number; memoryMB: number; diskMB: number }
}

/** What is to be built, in the columns of its row. */
interface Source {
  /** Null for a template: all share what is built */
  orgId: string | null
  snapshotId: string
  template: string | null
  config: string | null
  baseId: string | null
}

/**
 * Queues a build of an organization's own config or of a template, or joins the one that is under way. What it starts
 * from is queued with it unless that is ready.
 *
 * @throws SNAPSHOT_NOT_FOUND when there is neither config nor template of that id
 */
export async function queueBuild(trx: Transaction, orgId: string, snapshotId: string): Promise<{ jobId: string }> {
  return queue(trx, (await ownConfig(trx, orgId, snapshotId)) ?? ofTemplate(snapshotId))
}

// The config is held fast: whoever deletes it waits, and then finds the build that was queued for it.
async function ownConfig(trx: Transaction, orgId: string, id: string): Promise<Source | undefined> {
  const row = await trx
    .selectFrom('snapshotConfigs')
    .selectAll()
    .where('orgId', '=', orgId)
    .where('id', '=', id)
    .forShare()
    .executeTakeFirst()
  if (!row) return undefined
  const { vcpus, memoryMb, diskMb } = row
  const frozen: FrozenConfig = {
    setup: row.setup,
    requiredDomains: row.requiredDomains,
    resources: { vcpus, memoryMB: memoryMb, diskMB: diskMb },
  }
  return { orgId, snapshotId: id, template: null, config: JSON.stringify(frozen), baseId: row.template }
}

function ofTemplate(id: string): Source {
  if (!isTemplate(id)) throw snapshotNotFound(id)
  return { orgId: null, snapshotId: id, template: id, config: null, baseId: baseOf(id) }
}

async function queue(trx: Transaction, source: Source): Promise<{ jobId: string }> {
  const { orgId, snapshotId, baseId } = source
  // The base comes first in the queue, and rows are locked in this order by everybody.
  const waiting = baseId !== null && !(await isShared(trx, baseId)) ? await queue(trx, ofTemplate(baseId)) : undefined
  const step = waiting && `Waiting for "${baseId}", which it starts from (${waiting.jobId})`
  for (;;) {
    const made = await trx
      .insertInto('builds')
      // By the clock, since a config that this transaction has waited for may be younger than the transaction.
      .values({ ...source, jobId: newId('build-'), createdAt: sql`clock_timestamp()`, lastSeq: 1, step })
      .onConflict((oc) => oc.doNothing())
      .returning('jobId')
      .executeTakeFirst()
    if (made) {
      await tell(trx, made.jobId, 1, { status: 'queued', progress: 0, step })
      await notify(trx, workChannel)
      return made
    }
    // Held fast, so that it can't fail before what waits for it, a session or a build, is stored.
    const unfinished = await trx
      .selectFrom('builds')
      .select('jobId')
      .where('snapshotId', '=', snapshotId)
      .where('orgId', orgId === null ? 'is' : '=', orgId)
      .where('status', 'in', ['queued', 'building'])
      .forShare()
      .executeTakeFirst()
    // None any more: it has ended between the two statements.
    if (unfinished) return unfinished
  }
}

/** Whether a template has a good version, from which everybody's sessions and builds start. */
export async function isShared(db: Database, snapshotId: string): Promise<boolean> {
  const query = db.selectFrom('snapshots').select('id').where('id', '=', snapshotId).where('orgId', 'is', null)
  return (await query.executeTakeFirst()) !== undefined
}

export async function tell(
  trx: Transaction,
  jobId: string,
  seq: number,
  event: { status: string; progress: number; step?: string },
) {
  await appendEvents(trx, buildSubject(jobId), seq, [{ type: 'progress', data: Buffer.from(JSON.stringify(event)) }])
}
