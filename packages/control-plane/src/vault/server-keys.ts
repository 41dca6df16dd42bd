import { hkdfSync, randomBytes } from 'node:crypto'
import type { Database, Transaction } from '../database/index.ts'
import type { MasterKeys } from './master-keys.ts'

/** What digests are for; each purpose has a key of its own. */
export const digestPurposes = ['api-key', 'worker-credential', 'enrolment-token', 'idempotency'] as const
export type DigestPurpose = (typeof digestPurposes)[number]

const nameOf = (purpose: DigestPurpose) => `digest ${purpose}`
export const serverKeyIdentity = (name: string) => `server-key\0${name}`

/**
 * Makes the keys behind digests that are not there yet.
 *
 * Before the server had keys of its own they were derived from the master key. Where API keys are stored already, those
 * derived ones are kept, so that every digest holds on; the master key itself is not, and what was derived from it
 * doesn't lead back to it.
 *
 * @throws when it can't be told which of several master keys those digests were made with
 */
export async function makeDigestKeys(trx: Transaction, masterKeys: MasterKeys): Promise<void> {
  const stored = await trx.selectFrom('serverKeys').select('name').execute()
  const missing = digestPurposes.filter((purpose) => !stored.some(({ name }) => name === nameOf(purpose)))
  if (missing.length === 0) return
  const root = stored.length === 0 && (await hasDigests(trx)) ? await oldRoot(trx, masterKeys) : undefined
  const rows = missing.map((purpose) => {
    const name = nameOf(purpose)
    const key = root ? Buffer.from(hkdfSync('sha256', root, '', `paws digest ${purpose}`, 32)) : randomBytes(32)
    return { name, wrapped: masterKeys.wrap(serverKeyIdentity(name), key) }
  })
  await trx.insertInto('serverKeys').values(rows).execute()
}

export async function readDigestKeys(db: Database, masterKeys: MasterKeys): Promise<Map<DigestPurpose, Buffer>> {
  const rows = await db.selectFrom('serverKeys').select(['name', 'wrapped']).execute()
  return new Map(
    digestPurposes.map((purpose) => {
      const name = nameOf(purpose)
      const row = rows.find((each) => each.name === name)
      if (!row) throw new Error(`The database has lost the server's key "${name}"`)
      return [purpose, masterKeys.unwrap(serverKeyIdentity(name), row.wrapped)]
    }),
  )
}

async function hasDigests(trx: Transaction): Promise<boolean> {
  return (await trx.selectFrom('apiKeys').select('id').limit(1).executeTakeFirst()) !== undefined
}

// The key that wrapped a data key then is the one that the digests were derived from.
async function oldRoot(trx: Transaction, masterKeys: MasterKeys): Promise<Buffer> {
  if (masterKeys.all.length === 1) return masterKeys.all[0] as Buffer
  const row = await trx.selectFrom('dataKeys').select('wrapped').limit(1).executeTakeFirst()
  if (row) return masterKeys.wrapperOf(row.wrapped)
  throw new Error('Start once with the master key that this database was made with alone, before there are several')
}
