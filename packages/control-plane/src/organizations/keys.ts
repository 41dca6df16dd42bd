import type { Scope } from '@paws/api'
import { sql } from 'kysely'
import type { Logger } from 'pino'
import type { Database } from '../database/index.ts'
import type { Vault } from '../vault/index.ts'
import { isWellFormedKey } from './key-format.ts'
import { isOperatorScope } from './organizations.ts'

/** Whom an API key speaks for. */
export interface KeyHolder {
  kind: 'key'
  orgId: string
  keyId: string
  scopes: ReadonlySet<Scope>
  /** Whether the organization is the operator's */
  operator: boolean
}

export interface Keys {
  /** @returns undefined for a key that is unknown, revoked or expired */
  authenticate(key: string): Promise<KeyHolder | undefined>
  /** Which of these keys are revoked or expired */
  ended(keyIds: string[]): Promise<Set<string>>
}

/** `lastUsedAt` is exact to this. */
const usedEveryMs = 60_000
const mostRemembered = 50_000

/**
 * Authenticates API keys, each time by the database: one look into an index costs less than a millisecond, and a key
 * that is revoked works nowhere from then on, with no memory that would have to hear of it.
 */
export function openKeys({ db, vault, log }: { db: Database; vault: Vault; log: Logger }): Keys {
  const usedAt = new Map<string, number>()

  // Off the path of the request: nobody waits for it, and losing one costs nothing.
  function touch(keyId: string) {
    const now = Date.now()
    if (now - (usedAt.get(keyId) ?? 0) < usedEveryMs) return
    if (usedAt.size >= mostRemembered) usedAt.clear()
    usedAt.set(keyId, now)
    db.updateTable('apiKeys')
      .set({ lastUsedAt: sql`now()` })
      .where('id', '=', keyId)
      .execute()
      .catch((error: unknown) => log.warn({ err: error, keyId }, 'could not note when a key was last used'))
  }

  return {
    async authenticate(key) {
      if (!isWellFormedKey(key)) return undefined
      const row = await findKey(db, vault.digest('api-key', key))
      if (!row) return undefined
      touch(row.id)
      // Whatever stands in the row: the fleet is the operator's.
      const scopes = new Set((row.scopes as Scope[]).filter((scope) => row.operator || !isOperatorScope(scope)))
      return { kind: 'key', orgId: row.orgId, keyId: row.id, scopes, operator: row.operator }
    },
    async ended(keyIds) {
      const rows = await db
        .selectFrom('apiKeys')
        .select('id')
        .where('id', 'in', keyIds)
        .where((eb) => eb.or([eb('revokedAt', 'is not', null), eb('expiresAt', '<=', sql<Date>`now()`)]))
        .execute()
      return new Set(rows.map(({ id }) => id))
    },
  }
}

function findKey(db: Database, hash: Buffer) {
  return db
    .selectFrom('apiKeys')
    .innerJoin('organizations', 'organizations.id', 'apiKeys.orgId')
    .select(['apiKeys.id', 'apiKeys.orgId', 'apiKeys.scopes', 'organizations.operator'])
    .where('hash', '=', hash)
    .where('revokedAt', 'is', null)
    .where((eb) => eb.or([eb('expiresAt', 'is', null), eb('expiresAt', '>', sql<Date>`now()`)]))
    .executeTakeFirst()
}
