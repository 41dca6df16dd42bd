import { type Secret, secretName } from '@paws/api'
import { sql } from 'kysely'
import type { z } from 'zod'
import type { Database } from '../database/index.ts'
import { ApiError } from '../errors.ts'
import type { SealedColumn, Vault } from '../vault/index.ts'

type SecretBody = z.output<typeof Secret>

const columns = ['name', 'createdAt', 'updatedAt'] as const
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
 * @throws SECRET_NOT_FOUND for what can't be a name
 */
export async function putSecret(
  db: Database,
  vault: Vault,
  orgId: string,
  { name, value }: { name: string; value: string },
): Promise<SecretBody> {
  if (!secretName.test(name)) throw notFound(name)
  return db.transaction().execute(async (trx) => {
    const sealed = await vault.seal(trx, orgId, context(name), Buffer.from(value))
    const row = await trx
      .insertInto('secrets')
      .values({ orgId, name, sealed })
      .onConflict((oc) => oc.columns(['orgId', 'name']).doUpdateSet({ sealed, updatedAt: sql`now()` }))
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

/** The values of those among the names that are stored. */
export async function openSecrets(
  db: Database,
  vault: Vault,
  orgId: string,
  names: string[],
): Promise<Map<string, string>> {
  if (names.length === 0) return new Map()
  const read = (wanted: string[]) =>
    db.selectFrom('secrets').select(['name', 'sealed']).where('orgId', '=', orgId).where('name', 'in', wanted).execute()
  const values = new Map<string, string>()
  for (const { name, sealed } of await read(names)) {
    const again = async () => (await read([name]))[0]?.sealed
    values.set(name, (await vault.open(db, orgId, context(name), sealed, again)).toString())
  }
  return values
}

function show({ name, createdAt, updatedAt }: { name: string; createdAt: Date; updatedAt: Date }): SecretBody {
  return { name, value: '***', createdAt: createdAt.toISOString(), updatedAt: updatedAt.toISOString() }
}

function notFound(name: string): ApiError {
  const message = `Secret "${name}" does not exist: GET /v1/secrets names those that do`
  const form = 'A name is a letter, then letters, digits, "_", "." or "-", at most 100 of them'
  return new ApiError('SECRET_NOT_FOUND', secretName.test(name) ? message : `Secret not found: ${form.toLowerCase()}`)
}
