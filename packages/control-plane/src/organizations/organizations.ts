import { allScopes, operatorScopes, type Scope } from '@paws/api'
import type { Selectable } from 'kysely'
import type { Database, DB, Transaction } from '../database/index.ts'
import { ApiError } from '../errors.ts'
import { newId } from '../ids.ts'
import { type Page, pageOf, readCursor } from '../pages.ts'
import type { Vault } from '../vault/index.ts'
import { insertKey, type NewKey } from './api-keys.ts'

export type Organization = Selectable<DB['organizations']>

/** Creates an organization with a first key that may do all but operate the fleet. */
export async function createOrganization(
  db: Database,
  vault: Vault,
  name: string,
): Promise<{ organization: Organization; apiKey: NewKey }> {
  return db.transaction().execute((trx) => insertOrganization(trx, vault, { name, operator: false }))
}

/** As `createOrganization`, inside a transaction, the operator's own too. */
export async function insertOrganization(
  trx: Transaction,
  vault: Vault,
  { name, operator }: { name: string; operator: boolean },
) {
  const organization = await trx
    .insertInto('organizations')
    .values({ id: newId('org_'), name, operator })
    .returningAll()
    .executeTakeFirstOrThrow()
  const scopes = operator ? allScopes : allScopes.filter((scope) => !isOperatorScope(scope))
  const apiKey = await insertKey(trx, vault, { orgId: organization.id, name: 'First key', scopes })
  return { organization, apiKey }
}

export function isOperatorScope(scope: Scope): boolean {
  return (operatorScopes as readonly Scope[]).includes(scope)
}

/** @throws ORGANIZATION_NOT_FOUND */
export async function getOrganization(db: Database, id: string): Promise<Organization> {
  const organization = await db.selectFrom('organizations').selectAll().where('id', '=', id).executeTakeFirst()
  return organization ?? refuseOrganization(id)
}

/** All organizations, newest first. */
export async function listOrganizations(
  db: Database,
  { limit, cursor }: { limit: number; cursor?: string | undefined },
): Promise<Page<Organization>> {
  const below = readCursor(cursor, (id) => /^org_[0-9a-f]+$/.test(id))
  const rows = await db
    .selectFrom('organizations')
    .selectAll()
    .$if(below !== undefined, (query) => query.where('id', '<', below as string))
    .orderBy('id', 'desc')
    .limit(limit + 1)
    .execute()
  return pageOf(rows, limit, (row) => row.id)
}

/**
 * Changes what is given.
 *
 * @throws ORGANIZATION_NOT_FOUND
 */
export async function updateOrganization(
  db: Database,
  id: string,
  change: { name?: string | undefined },
): Promise<Organization> {
  if (change.name === undefined) return getOrganization(db, id)
  const organization = await db
    .updateTable('organizations')
    .set({ name: change.name })
    .where('id', '=', id)
    .returningAll()
    .executeTakeFirst()
  return organization ?? refuseOrganization(id)
}

/** @throws ORGANIZATION_NOT_FOUND, always: for another's as for none */
export function refuseOrganization(id: string): never {
  throw new ApiError('ORGANIZATION_NOT_FOUND', `Organization ${id} not found`)
}
