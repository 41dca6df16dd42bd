import type { Scope } from '@paws/api'
import { type Selectable, sql } from 'kysely'
import type { Database, DB, Transaction } from '../database/index.ts'
import { ApiError, invalidState } from '../errors.ts'
import { newId } from '../ids.ts'
import { type Page, pageOf, readCursor } from '../pages.ts'
import type { Vault } from '../vault/index.ts'
import { makeKey, visibleParts } from './key-format.ts'

export type ApiKey = Omit<Selectable<DB['apiKeys']>, 'hash'>
/** With the whole key, which is never seen again */
export type NewKey = ApiKey & { key: string }

const columns = [
  'id',
  'orgId',
  'name',
  'prefix',
  'lastFour',
  'scopes',
  'createdAt',
  'expiresAt',
  'lastUsedAt',
  'revokedAt',
] as const

export interface KeyWish {
  orgId: string
  name: string
  scopes: readonly Scope[]
  expiresAt?: Date | null | undefined
}

/** Makes a key as wished, without asking whether the maker may. */
export async function insertKey(db: Database, vault: Vault, wish: KeyWish): Promise<NewKey> {
  const key = makeKey()
  const row = await db
    .insertInto('apiKeys')
    .values({
      id: newId('key_'),
      orgId: wish.orgId,
      name: wish.name,
      ...visibleParts(key),
      hash: vault.digest('api-key', key),
      scopes: [...wish.scopes],
      expiresAt: wish.expiresAt ?? null,
    })
    .returning(columns)
    .executeTakeFirstOrThrow()
  return { ...row, key }
}

/**
 * Makes a key that may do no more than its maker.
 *
 * @throws FORBIDDEN when a scope is asked for that the maker lacks; VALIDATION_ERROR when it had expired already
 */
export async function createKey(db: Database, vault: Vault, wish: KeyWish, maker: ReadonlySet<Scope>): Promise<NewKey> {
  refuseBeyond(maker, wish.scopes)
  if (wish.expiresAt && wish.expiresAt.getTime() <= Date.now()) {
    const message = 'Must be in the future'
    throw new ApiError('VALIDATION_ERROR', `expiresAt: ${message}`, { details: [{ path: 'expiresAt', message }] })
  }
  return insertKey(db, vault, { ...wish, scopes: [...new Set(wish.scopes)] })
}

// Whoever holds a new key may do what it may do, however it was made.
function refuseBeyond(maker: ReadonlySet<Scope>, scopes: readonly Scope[]): void {
  const beyond = scopes.filter((scope) => !maker.has(scope))
  if (beyond.length === 0) return
  throw new ApiError('FORBIDDEN', `A key can't give what it lacks itself: ${beyond.join(', ')}`, {
    details: beyond.map((scope) => ({ path: 'scopes', message: scope })),
  })
}

/** The keys of an organization, newest first, the revoked ones too. */
export async function listKeys(
  db: Database,
  orgId: string,
  { limit, cursor }: { limit: number; cursor?: string | undefined },
): Promise<Page<ApiKey>> {
  const below = readCursor(cursor, (id) => /^key_[0-9a-f]+$/.test(id))
  const rows = await db
    .selectFrom('apiKeys')
    .select(columns)
    .where('orgId', '=', orgId)
    .$if(below !== undefined, (query) => query.where('id', '<', below as string))
    .orderBy('id', 'desc')
    .limit(limit + 1)
    .execute()
  return pageOf(rows, limit, (row) => row.id)
}

/**
 * Ends a key at once, on every control plane. Again changes nothing.
 *
 * @throws API_KEY_NOT_FOUND
 */
export async function revokeKey(db: Database, orgId: string, keyId: string): Promise<void> {
  await db.transaction().execute(async (trx) => {
    const key = await lockKey(trx, orgId, keyId)
    if (!key.revokedAt) {
      await trx.updateTable('apiKeys').set({ revokedAt: sql`now()` }).where('id', '=', keyId).execute()
    }
  })
}

/**
 * Makes a key like another, which works on for the overlap.
 *
 * @throws API_KEY_NOT_FOUND; FORBIDDEN when the other has a scope that the maker lacks; INVALID_STATE when the other is revoked or expired
 */
export async function rotateKey(
  db: Database,
  vault: Vault,
  { orgId, keyId, overlapMs }: { orgId: string; keyId: string; overlapMs: number },
  maker: ReadonlySet<Scope>,
): Promise<NewKey> {
  return db.transaction().execute(async (trx) => {
    const old = await lockKey(trx, orgId, keyId)
    const scopes = old.scopes as Scope[]
    refuseBeyond(maker, scopes)
    const state = old.revokedAt ? 'revoked' : old.expiresAt && old.expiresAt.getTime() <= Date.now() ? 'expired' : null
    if (state) throw invalidState(`API key ${keyId} is ${state}: make a new one instead`, state, ['active'])
    const made = await insertKey(trx, vault, {
      orgId,
      name: old.name,
      scopes,
      expiresAt: old.expiresAt,
    })
    const end = sql<Date>`least(expires_at, now() + ${overlapMs} * interval '1 millisecond')`
    await trx.updateTable('apiKeys').set({ expiresAt: end }).where('id', '=', keyId).execute()
    return made
  })
}

async function lockKey(trx: Transaction, orgId: string, keyId: string): Promise<ApiKey> {
  const key = await trx
    .selectFrom('apiKeys')
    .select(columns)
    .where('id', '=', keyId)
    .where('orgId', '=', orgId)
    .forUpdate()
    .executeTakeFirst()
  if (!key) throw new ApiError('API_KEY_NOT_FOUND', `API key ${keyId} not found`)
  return key
}
