import { randomBytes } from 'node:crypto'
import { sql } from 'kysely'
import type { Database, Transaction } from '../database/index.ts'
import type { MasterKeys } from './master-keys.ts'

export interface DataKey {
  version: number
  key: Buffer
}

/** The data keys of organizations, opened. */
export interface DataKeys {
  /** The newest, made if there is none; it can't be deleted until the transaction ends */
  holdNewest(trx: Transaction, orgId: string): Promise<DataKey>
  /** A new one, which seals from the commit on; @returns its version */
  add(trx: Transaction, orgId: string): Promise<number>
  find(db: Database, orgId: string, version: number): Promise<Buffer | undefined>
}

/** What a data key is bound to when it is wrapped. */
export const dataKeyIdentity = (orgId: string, version: number) => `data-key\0${orgId}\0${version}`

/** Most data keys that are kept open in memory. */
const cacheSize = 10_000

export function openDataKeys(masterKeys: MasterKeys): DataKeys {
  const cache = new Map<string, Buffer>()
  const unwrap = (orgId: string, { version, wrapped }: { version: number; wrapped: Buffer }) =>
    masterKeys.unwrap(dataKeyIdentity(orgId, version), wrapped)

  // Always one above the highest, so that the number of a key that is gone never stands for another one.
  async function insert(trx: Transaction, orgId: string, version: number): Promise<boolean> {
    const wrapped = masterKeys.wrap(dataKeyIdentity(orgId, version), randomBytes(32))
    const query = trx.insertInto('dataKeys').values({ orgId, version, wrapped })
    const made = await query
      .onConflict((oc) => oc.doNothing())
      .returning('version')
      .executeTakeFirst()
    return made !== undefined
  }

  return {
    async holdNewest(trx, orgId) {
      for (;;) {
        const row = await trx
          .selectFrom('dataKeys')
          .select(['version', 'wrapped'])
          .where('orgId', '=', orgId)
          .orderBy('version', 'desc')
          .limit(1)
          .forKeyShare()
          .executeTakeFirst()
        if (row) return { version: row.version, key: unwrap(orgId, row) }
        // Without a row there is none yet, or the one that was newest has just been deleted and a newer one is there.
        if ((await highest(trx, orgId)) === 0) await insert(trx, orgId, 1)
      }
    },
    async add(trx, orgId) {
      for (;;) {
        const version = (await highest(trx, orgId)) + 1
        if (await insert(trx, orgId, version)) return version
      }
    },
    async find(db, orgId, version) {
      const name = `${orgId}\0${version}`
      const cached = cache.get(name)
      if (cached) return cached
      const row = await db
        .selectFrom('dataKeys')
        .select(['version', 'wrapped'])
        .where('orgId', '=', orgId)
        .where('version', '=', version)
        .executeTakeFirst()
      if (!row) return undefined
      const key = unwrap(orgId, row)
      // A transaction may yet be rolled back, its new data key with it: only what is committed is kept.
      if (!db.isTransaction) {
        if (cache.size >= cacheSize) cache.clear()
        cache.set(name, key)
      }
      return key
    },
  }
}

async function highest(trx: Transaction, orgId: string): Promise<number> {
  const { rows } = await sql<{ version: number | null }>`
    select max(version) as version from data_keys where org_id = ${orgId}`.execute(trx)
  return rows[0]?.version ?? 0
}
