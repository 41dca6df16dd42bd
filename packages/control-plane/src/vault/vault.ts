import { createHmac } from 'node:crypto'
import { sql } from 'kysely'
import type { Database, Transaction } from '../database/index.ts'
import { openDataKeys } from './data-keys.ts'
import { keyIdOf, openWith, sealWith, UnreadableError } from './envelope.ts'
import { useMasterKeys } from './master-keys.ts'
import { rewrap } from './rewrap.ts'
import { type Rotation, rotateDataKey, type SealedColumn } from './rotate-data-key.ts'
import { type DigestPurpose, makeDigestKeys, readDigestKeys } from './server-keys.ts'

/** Seals and opens secrets, each organization's under a data key of its own, wrapped by the master key. */
export interface Vault {
  /**
   * Seals with the newest data key, and holds that until the transaction ends: what is sealed is written in the same
   * one, so no rotation can miss it. Seal before locking rows that hold sealed bytes: rotation locks in that order.
   *
   * @param context says which row and column the bytes belong to; they open only under the same one
   */
  seal(trx: Transaction, orgId: string, context: string, bytes: Uint8Array): Promise<Buffer>
  /**
   * @param readAgain reads the sealed bytes anew, for when their data key has been replaced since they were read
   * @throws UnreadableError when the bytes were changed or belong to another organization or context, or their key is gone
   */
  open(
    db: Database,
    orgId: string,
    context: string,
    sealed: Buffer,
    readAgain?: () => Promise<Buffer | null | undefined>,
  ): Promise<Buffer>
  /** HMAC-SHA-256 under a key of the server's own: the database alone can't verify a guess */
  digest(purpose: DigestPurpose, bytes: string | Uint8Array): Buffer
  /**
   * Replaces an organization's data key and seals anew what older ones have sealed; those are deleted.
   *
   * @param columns all that hold sealed bytes
   */
  rotateDataKey(db: Database, orgId: string, columns: readonly SealedColumn[]): Promise<Rotation>
}

/** Any number that nobody else locks: control planes that start together make and wrap keys one after the other. */
const lockId = 7_209_116

/**
 * Opens the vault of a database: makes the server's own keys at the first start, and wraps anew what another than the
 * first master key has wrapped.
 *
 * @param keys master keys; the first wraps, all open
 * @param onRewrapped told how many keys were wrapped anew
 * @throws when none of them has wrapped what is there; nothing is written then
 */
export async function openVault(db: Database, keys: Buffer[], onRewrapped?: (count: number) => void): Promise<Vault> {
  const masterKeys = useMasterKeys(keys)
  const rewrapped = await db.transaction().execute(async (trx) => {
    await sql`select pg_advisory_xact_lock(${lockId})`.execute(trx)
    // First, since it may look at what has wrapped the data keys so far.
    await makeDigestKeys(trx, masterKeys)
    return rewrap(trx, masterKeys)
  })
  if (rewrapped > 0) onRewrapped?.(rewrapped)
  const digestKeys = await readDigestKeys(db, masterKeys)
  const dataKeys = openDataKeys(masterKeys)

  return {
    async seal(trx, orgId, context, bytes) {
      const newest = await dataKeys.holdNewest(trx, orgId)
      return sealWith(newest.key, newest.version, `${orgId}\0${context}`, bytes)
    },
    async open(db, orgId, context, sealed, readAgain) {
      let current = sealed
      let key = await dataKeys.find(db, orgId, keyIdOf(current))
      if (!key) {
        current = (await readAgain?.()) ?? sealed
        key = await dataKeys.find(db, orgId, keyIdOf(current))
      }
      if (!key) throw new UnreadableError(`Organization ${orgId} has no data key of version ${keyIdOf(current)}`)
      return openWith(key, `${orgId}\0${context}`, current)
    },
    digest(purpose, bytes) {
      return createHmac('sha256', digestKeys.get(purpose) as Buffer)
        .update(bytes)
        .digest()
    },
    rotateDataKey: (db, orgId, columns) => rotateDataKey(db, orgId, columns, dataKeys),
  }
}
