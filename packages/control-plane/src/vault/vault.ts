import { createHmac, hkdfSync, randomBytes } from 'node:crypto'
import type { Database } from '../database/index.ts'
import { keyIdOf, openWith, sealWith } from './envelope.ts'

/** What digests are for; each purpose has a pepper of its own. */
export type DigestPurpose = 'api-key' | 'worker-credential' | 'enrolment-token' | 'idempotency'

/** Seals and opens secrets, each organization's under a data key of its own, wrapped by the master key. */
export interface Vault {
  /**
   * @param context says which row and column the bytes belong to; they open only under the same one
   */
  seal(db: Database, orgId: string, context: string, bytes: Uint8Array): Promise<Buffer>
  /** @throws when the bytes were changed or belong to another organization or context */
  open(db: Database, orgId: string, context: string, sealed: Buffer): Promise<Buffer>
  /** HMAC-SHA-256 under a pepper that only the master key gives: the database alone can't verify a guess */
  digest(purpose: DigestPurpose, bytes: string | Uint8Array): Buffer
}

interface DataKey {
  version: number
  key: Buffer
}

/** Most organizations whose opened data keys are kept in memory. */
const cacheSize = 10_000

export function openVault(masterKey: Buffer): Vault {
  const wrapping = Buffer.from(hkdfSync('sha256', masterKey, '', 'paws wrap data keys', 32))
  // Names the master key in what it wraps, so that a wrong one is told from damage and rotation can find old ones.
  const wrappingId = Buffer.from(hkdfSync('sha256', masterKey, '', 'paws master key id', 4)).readUInt32BE()
  const peppers = new Map<string, Buffer>()
  const cache = new Map<string, DataKey[]>()

  function unwrap(orgId: string, version: number, wrapped: Buffer): DataKey {
    if (keyIdOf(wrapped) !== wrappingId) {
      throw new Error('The master key is not the one that this database was sealed with: restore the right one')
    }
    return { version, key: openWith(wrapping, `data-key\0${orgId}\0${version}`, wrapped) }
  }

  async function read(db: Database, orgId: string): Promise<DataKey[]> {
    const rows = await db
      .selectFrom('dataKeys')
      .select(['version', 'wrapped'])
      .where('orgId', '=', orgId)
      .orderBy('version', 'desc')
      .execute()
    return rows.map((row) => unwrap(orgId, row.version, row.wrapped))
  }

  /** Newest first, never empty. */
  async function dataKeys(db: Database, orgId: string): Promise<DataKey[]> {
    const cached = cache.get(orgId)
    if (cached) return cached
    let keys = await read(db, orgId)
    if (keys.length === 0) {
      const wrapped = sealWith(wrapping, wrappingId, `data-key\0${orgId}\0${1}`, randomBytes(32))
      await db
        .insertInto('dataKeys')
        .values({ orgId, version: 1, wrapped })
        .onConflict((oc) => oc.doNothing())
        .execute()
      keys = await read(db, orgId)
    }
    // A transaction may yet be rolled back, its new data key with it: only what is committed is kept.
    if (!db.isTransaction) {
      if (cache.size >= cacheSize) cache.clear()
      cache.set(orgId, keys)
    }
    return keys
  }

  return {
    async seal(db, orgId, context, bytes) {
      const [newest] = await dataKeys(db, orgId)
      if (!newest) throw new Error(`Organization ${orgId} has no data key`)
      return sealWith(newest.key, newest.version, `${orgId}\0${context}`, bytes)
    },
    async open(db, orgId, context, sealed) {
      const version = keyIdOf(sealed)
      let found = (await dataKeys(db, orgId)).find((key) => key.version === version)
      if (!found) {
        // Another control plane may have added a version since it was cached.
        cache.delete(orgId)
        found = (await dataKeys(db, orgId)).find((key) => key.version === version)
      }
      if (!found) throw new Error(`Organization ${orgId} has no data key of version ${version}`)
      return openWith(found.key, `${orgId}\0${context}`, sealed)
    },
    digest(purpose, bytes) {
      let pepper = peppers.get(purpose)
      if (!pepper) {
        pepper = Buffer.from(hkdfSync('sha256', masterKey, '', `paws digest ${purpose}`, 32))
        peppers.set(purpose, pepper)
      }
      return createHmac('sha256', pepper).update(bytes).digest()
    },
  }
}
