import { type RawBuilder, sql } from 'kysely'
import type { Database, DB, Transaction } from '../database/index.ts'
import type { DataKeys } from './data-keys.ts'
import { keyIdOf, openWith, sealWith } from './envelope.ts'

/** A column of sealed bytes in a table with `org_id`; names as the types of the database have them. */
export interface SealedColumn {
  table: keyof DB
  column: string
  /** The columns that tell its rows apart */
  key: readonly string[]
  /** What a row's bytes were sealed with */
  context(row: Record<string, string>): string
}

export interface Rotation {
  /** Of the new data key */
  version: number
  /** How many sealed things now stand under a newer key */
  resealed: number
}

/** Rows sealed anew in one transaction, so that nobody waits for long for their locks. */
const batch = 200
/** Any number that nobody else locks: rotations of one organization take turns by it. */
const lockId = 7_209_117

/**
 * Replaces an organization's data key and seals anew what older ones have sealed. Nothing is lost to whoever seals
 * meanwhile, here or in another control plane:
 *
 * 1. A new key is added. From its commit on whoever seals takes it.
 * 2. What stands under older keys is sealed anew, batch by batch, while everybody works on.
 * 3. Older keys are locked and what still stands under them is sealed anew; then they are deleted. Whoever sealed with
 *    one has shared its row until the commit (`DataKeys.holdNewest`), so the lock waits for that, and what was sealed
 *    is seen here. Whoever comes later finds the row gone and takes the newest.
 *
 * Deadlocks can't come of it, as everybody locks data keys before rows that hold sealed bytes.
 */
export async function rotateDataKey(
  db: Database,
  orgId: string,
  columns: readonly SealedColumn[],
  dataKeys: DataKeys,
): Promise<Rotation> {
  const inTurn = <T>(work: (trx: Transaction) => Promise<T>) =>
    db.transaction().execute(async (trx) => {
      await sql`select pg_advisory_xact_lock(${lockId}, hashtext(${orgId}))`.execute(trx)
      return work(trx)
    })
  const version = await inTurn((trx) => dataKeys.add(trx, orgId))
  let resealed = 0
  for (const column of columns) {
    for (let done = batch; done === batch; resealed += done) {
      done = await inTurn((trx) => reseal(trx, orgId, column, dataKeys))
    }
  }
  resealed += await inTurn((trx) => deleteOlder(trx, orgId, columns, dataKeys))
  return { version, resealed }
}

/** Seals a batch of rows anew that are not under the newest key. @returns how many */
async function reseal(trx: Transaction, orgId: string, column: SealedColumn, dataKeys: DataKeys): Promise<number> {
  const newest = await dataKeys.holdNewest(trx, orgId)
  const sealedColumn = sql.ref(column.column)
  const keys = column.key.map((name) => sql`${sql.ref(name)}::text as ${sql.ref(name)}`)
  const { rows } = await sql<Record<string, string> & { sealed: Buffer }>`
    select ${sealedColumn} as sealed, ${sql.join(keys)} from ${sql.table(column.table)}
    where org_id = ${orgId} and ${sealedColumn} is not null
      and substring(${sealedColumn} from 2 for 4) <> int4send(${newest.version}::int)
    limit ${batch} for update`.execute(trx)
  const olds = new Map<number, Buffer>()
  for (const { sealed, ...row } of rows as ({ sealed: Buffer } & Record<string, unknown>)[]) {
    const identity = `${orgId}\0${column.context(row as Record<string, string>)}`
    const version = keyIdOf(sealed)
    const old = olds.get(version) ?? (await dataKeys.find(trx, orgId, version))
    if (!old) throw new Error(`${column.table} of ${orgId} holds what was sealed by a data key that is gone`)
    olds.set(version, old)
    const anew = sealWith(newest.key, newest.version, identity, openWith(old, identity, sealed))
    const same: RawBuilder<unknown>[] = column.key.map((name) => sql`${sql.ref(name)} = ${row[name]}`)
    await sql`update ${sql.table(column.table)} set ${sealedColumn} = ${anew}
      where org_id = ${orgId} and ${sql.join(same, sql` and `)}`.execute(trx)
  }
  return rows.length
}

async function deleteOlder(trx: Transaction, orgId: string, columns: readonly SealedColumn[], dataKeys: DataKeys) {
  const { version: newest } = await dataKeys.holdNewest(trx, orgId)
  const older = trx.selectFrom('dataKeys').select('version').where('orgId', '=', orgId).where('version', '<', newest)
  await older.orderBy('version').forUpdate().execute()
  let resealed = 0
  for (const column of columns) {
    for (let done = batch; done === batch; resealed += done) done = await reseal(trx, orgId, column, dataKeys)
  }
  await trx.deleteFrom('dataKeys').where('orgId', '=', orgId).where('version', '<', newest).execute()
  return resealed
}
