import { randomBytes } from 'node:crypto'
import type { WorkerState } from '@paws/api'
import type { z } from 'zod'
import type { Database, Transaction } from '../database/index.ts'
import { ApiError } from '../errors.ts'
import { newId } from '../ids.ts'
import type { Vault } from '../vault/index.ts'

interface Opened {
  db: Database
  vault: Vault
}

const makeSecret = (prefix: string) => `${prefix}${randomBytes(32).toString('base64url')}`

/** Makes a token that enrols one worker, once. Only its digest is kept. */
export async function createEnrolmentToken(
  { db, vault }: Opened,
  expiresInMs: number,
): Promise<{ token: string; expiresAt: string }> {
  const token = makeSecret('pawsjoin_')
  const expiresAt = new Date(Date.now() + expiresInMs)
  await db
    .insertInto('enrolmentTokens')
    .values({ id: newId('enr_'), hash: vault.digest('enrolment-token', token), expiresAt })
    .execute()
  return { token, expiresAt: expiresAt.toISOString() }
}

/** Who holds this token; undefined when it is unknown, used or too old. */
export async function authenticateEnrolment({ db, vault }: Opened, token: string) {
  const row = await db
    .selectFrom('enrolmentTokens')
    .select('id')
    .where('hash', '=', vault.digest('enrolment-token', token))
    .where('usedAt', 'is', null)
    .where('expiresAt', '>', new Date())
    .executeTakeFirst()
  return row && { kind: 'enrolment' as const, tokenId: row.id }
}

/** Which worker holds this credential; undefined when none does. */
export async function authenticateWorker({ db, vault }: Opened, credential: string) {
  const row = await db
    .selectFrom('workers')
    .select(['id', 'name'])
    .where('credentialHash', '=', vault.digest('worker-credential', credential))
    .executeTakeFirst()
  return row && { kind: 'worker' as const, workerId: row.id, name: row.name }
}

/**
 * Turns a token into a worker with a credential of its own. A name that is taken gets a number behind it.
 *
 * @throws UNAUTHORIZED when another request has used the token meanwhile
 */
export async function enrolWorker(
  { db, vault }: Opened,
  tokenId: string,
  request: { name: string; state: z.output<typeof WorkerState> },
): Promise<{ workerId: string; name: string; credential: string }> {
  const credential = makeSecret('pawswork_')
  return db.transaction().execute(async (trx) => {
    const { numUpdatedRows } = await trx
      .updateTable('enrolmentTokens')
      .set({ usedAt: new Date() })
      .where('id', '=', tokenId)
      .where('usedAt', 'is', null)
      .executeTakeFirst()
    if (numUpdatedRows === 0n) throw new ApiError('UNAUTHORIZED', 'This enrolment token has been used: make another')
    const worker = await insertWorker(trx, request, vault.digest('worker-credential', credential))
    return { workerId: worker.id, name: worker.name, credential }
  })
}

async function insertWorker(
  trx: Transaction,
  request: { name: string; state: z.output<typeof WorkerState> },
  credentialHash: Buffer,
): Promise<{ id: string; name: string }> {
  const id = newId('wrk_')
  for (let number = 1; ; number++) {
    const suffix = number === 1 ? '' : `-${number}`
    // A host label has at most 63 characters.
    const name = request.name.slice(0, 63 - suffix.length) + suffix
    const row = await trx
      .insertInto('workers')
      .values({ id, name, credentialHash, state: JSON.stringify(request.state) })
      .onConflict((oc) => oc.column('name').doNothing())
      .returning(['id', 'name'])
      .executeTakeFirst()
    if (row) return row
  }
}
