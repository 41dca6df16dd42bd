import { type Secret, secretName } from '@paws/api'
import { sql } from 'kysely'
import type { z } from 'zod'
import type { Database } from '../database/index.ts'
import { ApiError } from '../errors.ts'
import type { SealedColumn, Vault } from '../vault/index.ts'

type SecretBody = z.output<typeof Secret>

/** A stored secret as a session is given it. */
export interface OpenedSecret {
  value: string
  /** Whether it may be named for this host */
  isFor(host: string): boolean
}

const columns = ['name', 'hosts', 'createdAt', 'updatedAt'] as const
const context = (name: string) => `secrets/${name}`

export const sealedSecrets: SealedColumn = {
  table: 'secrets',
  column: 'sealed',
  key: ['name'],
  context: ({ name = '' }) => context(name),
}

/**
 * Stores a secret under a name, in the place of one that was there.
 *
 * @param wish without `hosts` it stays bound to those that it was bound to; null frees it
 * @throws SECRET_NOT_FOUND for what can't be a name
 */
export async function putSecret(
  db: Database,
  vault: Vault,
  orgId: string,
  wish: { name: string; value: string; hosts?: string[] | null },
): Promise<SecretBody> {
  const { name, value, hosts } = wish
  if (!secretName.test(name)) throw notFound(name)
  return db.transaction().execute(async (trx) => {
    const sealed = await vault.seal(trx, orgId, context(name), Buffer.from(value))
    const row = await trx
      .insertInto('secrets')
      .values({ orgId, name, sealed, hosts })
      // What is undefined is left as it is: nobody takes a binding away by forgetting it.
      .onConflict((oc) => oc.columns(['orgId', 'name']).doUpdateSet({ sealed, hosts, updatedAt: sql`now()` }))
      .returning(columns)
      .executeTakeFirstOrThrow()
    return show(row)
  })
}

/** All of an organization, by name. */
export async function listSecrets(db: Database, orgId: string): Promise<SecretBody[]> {
  const query = db.selectFrom('secrets').select(columns).where('orgId', '=', orgId).orderBy('name')
  return (await query.execute()).map(show)
}

/** @throws SECRET_NOT_FOUND */
export async function deleteSecret(db: Database, orgId: string, name: string): Promise<void> {
  const query = db.deleteFrom('secrets').where('orgId', '=', orgId).where('name', '=', name)
  if ((await query.executeTakeFirst()).numDeletedRows === 0n) throw notFound(name)
}

/** Those among the names that are stored, opened. */
export async function openSecrets(
  db: Database,
  vault: Vault,
  orgId: string,
  names: string[],
): Promise<Map<string, OpenedSecret>> {
  if (names.length === 0) return new Map()
  const stored = db.selectFrom('secrets').select(['name', 'sealed', 'hosts']).where('orgId', '=', orgId)
  const read = (wanted: string[]) => stored.where('name', 'in', wanted).execute()
  const opened = new Map<string, OpenedSecret>()
  for (const row of await read(names)) {
    const { name } = row
    // The hosts are those of the very row whose value is opened.
    let current = row
    const again = async () => {
      current = (await read([name]))[0] ?? row
      return current.sealed
    }
    const value = (await vault.open(db, orgId, context(name), row.sealed, again)).toString()
    const { hosts } = current
    opened.set(name, { value, isFor: (host) => hosts === null || hosts.some((pattern) => covers(pattern, host)) })
  }
  return opened
}

const covers = (pattern: string, host: string) =>
  pattern.startsWith('*.') ? host.endsWith(pattern.slice(1)) : host === pattern

type Row = { name: string; hosts: string[] | null; createdAt: Date; updatedAt: Date }

function show({ name, hosts, createdAt, updatedAt }: Row): SecretBody {
  const times = { createdAt: createdAt.toISOString(), updatedAt: updatedAt.toISOString() }
  return { name, value: '***', ...(hosts && { hosts }), ...times }
}

function notFound(name: string): ApiError {
  const message = `Secret "${name}" does not exist: GET /v1/secrets names those that do`
  const form = 'A name is a letter, then letters, digits, "_", "." or "-", at most 100 of them'
  return new ApiError('SECRET_NOT_FOUND', secretName.test(name) ? message : `Secret not found: ${form.toLowerCase()}`)
}
