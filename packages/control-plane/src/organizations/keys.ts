import { setTimeout as sleep } from 'node:timers/promises'
import type { Scope } from '@paws/api'
import { sql } from 'kysely'
import type { Logger } from 'pino'
import type { Database } from '../database/index.ts'
import type { Events } from '../events/index.ts'
import type { Vault } from '../vault/index.ts'
import { keysChannel } from './api-keys.ts'
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
  /** Changes a key, and answers once that has been heard of: no control plane goes on by what it was. */
  change<T>(keyId: string, work: () => Promise<T>): Promise<T>
  close(): void
}

/** How long a key is remembered; a change of it ends that at once. */
const rememberedMs = 3000
const mostRemembered = 50_000
/** A change is heard of within milliseconds; without a connection nothing is remembered, and there is nothing to wait for. */
const heardWithinMs = 1000
/** `lastUsedAt` is exact to this. */
const usedEveryMs = 60_000

interface Remembered {
  holder: KeyHolder
  until: number
}

/** Authenticates API keys, remembering for seconds, and only while every change of a key is heard of. */
export function openKeys({
  db,
  vault,
  events,
  log,
}: {
  db: Database
  vault: Vault
  events: Events
  log: Logger
}): Keys {
  const remembered = new Map<string, Remembered>()
  const usedAt = new Map<string, number>()
  // Counts changes: what was read before one must not be remembered after it.
  let changes = 0
  const stop = events.listen(keysChannel, () => {
    changes++
    remembered.clear()
  })

  async function look(hash: Buffer): Promise<Remembered | undefined> {
    const row = await db
      .selectFrom('apiKeys')
      .innerJoin('organizations', 'organizations.id', 'apiKeys.orgId')
      .select(['apiKeys.id', 'apiKeys.orgId', 'apiKeys.scopes', 'apiKeys.expiresAt', 'organizations.operator'])
      .where('hash', '=', hash)
      .where('revokedAt', 'is', null)
      .where((eb) => eb.or([eb('expiresAt', 'is', null), eb('expiresAt', '>', sql<Date>`now()`)]))
      .executeTakeFirst()
    if (!row) return undefined
    // Whatever stands in the row: the fleet is the operator's.
    const scopes = new Set((row.scopes as Scope[]).filter((scope) => row.operator || !isOperatorScope(scope)))
    return {
      holder: { kind: 'key', orgId: row.orgId, keyId: row.id, scopes, operator: row.operator },
      until: Math.min(Date.now() + rememberedMs, row.expiresAt?.getTime() ?? Number.POSITIVE_INFINITY),
    }
  }

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
      const hash = vault.digest('api-key', key)
      const name = hash.toString('base64')
      const hit = remembered.get(name)
      if (hit && hit.until > Date.now() && events.connected()) {
        touch(hit.holder.keyId)
        return hit.holder
      }
      const before = changes
      const found = await look(hash)
      if (!found) return undefined
      if (before === changes && events.connected()) {
        if (remembered.size >= mostRemembered) remembered.clear()
        remembered.set(name, found)
      }
      touch(found.holder.keyId)
      return found.holder
    },
    async change(keyId, work) {
      const { promise: heard, resolve } = Promise.withResolvers<void>()
      const stopHearing = events.listen(keysChannel, (changed) => {
        if (changed === keyId || changed === null) resolve()
      })
      try {
        const result = await work()
        if (events.connected()) await Promise.race([heard, sleep(heardWithinMs, undefined, { ref: false })])
        return result
      } finally {
        stopHearing()
      }
    },
    close: stop,
  }
}
