import { mkdir, open, rename } from 'node:fs/promises'
import { dirname } from 'node:path'
import { sql } from 'kysely'
import type { Database } from '../database/index.ts'
import type { Vault } from '../vault/index.ts'
import { insertOrganization } from './organizations.ts'

/** Any number that nobody else locks: of control planes that start together, one makes the organization. */
const lockId = 7_209_115

/**
 * Makes the operator's organization at the very first start and leaves its key in a file that only its owner reads.
 *
 * @returns whether it was made now
 */
export async function ensureFirstOrganization(db: Database, vault: Vault, keyFile: string): Promise<boolean> {
  return db.transaction().execute(async (trx) => {
    await sql`select pg_advisory_xact_lock(${lockId})`.execute(trx)
    const existing = await trx.selectFrom('organizations').select('id').where('operator', '=', true).executeTakeFirst()
    if (existing) return false
    const { apiKey } = await insertOrganization(trx, vault, { name: 'Operator', operator: true })
    // Before the commit: after a crash in between there is no organization, and the next start writes another key.
    await writeKey(keyFile, apiKey.key)
    return true
  })
}

async function writeKey(file: string, key: string): Promise<void> {
  await mkdir(dirname(file), { recursive: true })
  const beside = `${file}.new`
  const handle = await open(beside, 'w', 0o600)
  try {
    await handle.chmod(0o600)
    await handle.writeFile(`${key}\n`)
    await handle.sync()
  } finally {
    await handle.close()
  }
  await rename(beside, file)
}
