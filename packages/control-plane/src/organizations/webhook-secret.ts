import { randomBytes } from 'node:crypto'
import { sql } from 'kysely'
import type { Database, Transaction } from '../database/index.ts'
import type { SealedColumn, Vault } from '../vault/index.ts'

/** What signs an organization's callbacks, in the form of Standard Webhooks. */
export interface WebhookSecret {
  secret: string
  /** The one before, which signs beside the new one until then */
  previous?: { secret: string; validUntil: Date }
}

// The same for both columns: a secret moves from one to the other as it is.
const context = 'webhook_secrets'

export const sealedWebhookSecrets: SealedColumn[] = ['sealed', 'previousSealed'].map((column) => ({
  table: 'webhookSecrets',
  column,
  key: ['orgId'],
  context: () => context,
}))

/** The organization's secret; made when first asked for. */
export async function getWebhookSecret(db: Database, vault: Vault, orgId: string): Promise<WebhookSecret> {
  const row = (await read(db, orgId)) ?? (await create(db, vault, orgId))
  const again = async () => (await read(db, orgId))?.sealed
  const secret = (await vault.open(db, orgId, context, row.sealed, again)).toString()
  if (!row.previousSealed || !row.previousValidUntil || row.previousValidUntil.getTime() <= Date.now())
    return { secret }
  const previousAgain = async () => (await read(db, orgId))?.previousSealed
  const previous = (await vault.open(db, orgId, context, row.previousSealed, previousAgain)).toString()
  return { secret, previous: { secret: previous, validUntil: row.previousValidUntil } }
}

/** The secrets that sign now: the organization's, and while they overlap the one before. */
export async function signingSecrets(db: Database, vault: Vault, orgId: string): Promise<string[]> {
  const { secret, previous } = await getWebhookSecret(db, vault, orgId)
  return previous ? [secret, previous.secret] : [secret]
}

/** Replaces the secret; the old one signs beside the new one for the overlap. */
export async function rotateWebhookSecret(
  db: Database,
  vault: Vault,
  orgId: string,
  overlapMs: number,
): Promise<WebhookSecret> {
  if (!(await read(db, orgId))) await create(db, vault, orgId)
  await db.transaction().execute(async (trx) => {
    const sealed = await makeSealed(trx, vault, orgId)
    await trx
      .updateTable('webhookSecrets')
      .set({
        sealed,
        previousSealed: sql<Buffer>`sealed`,
        previousValidUntil: sql<Date>`now() + ${overlapMs} * interval '1 millisecond'`,
      })
      .where('orgId', '=', orgId)
      .execute()
  })
  return getWebhookSecret(db, vault, orgId)
}

function read(db: Database, orgId: string) {
  return db.selectFrom('webhookSecrets').selectAll().where('orgId', '=', orgId).executeTakeFirst()
}

async function create(db: Database, vault: Vault, orgId: string) {
  await db.transaction().execute(async (trx) => {
    const sealed = await makeSealed(trx, vault, orgId)
    // Two that ask at once get the same one.
    const query = trx.insertInto('webhookSecrets').values({ orgId, sealed })
    await query.onConflict((conflict) => conflict.doNothing()).execute()
  })
  const row = await read(db, orgId)
  if (!row) throw new Error(`Organization ${orgId} lost its webhook secret while it was made`)
  return row
}

function makeSealed(trx: Transaction, vault: Vault, orgId: string): Promise<Buffer> {
  return vault.seal(trx, orgId, context, Buffer.from(`whsec_${randomBytes(32).toString('base64')}`))
}
