import { sql } from 'kysely'
import type { Database } from '../database/index.ts'
import type { Vault } from '../vault/index.ts'

/** The worker whose credential this is. */
export async function authenticateWorker(
  { db, vault }: { db: Database; vault: Vault },
  credential: string,
): Promise<{ kind: 'worker'; workerId: string; name: string } | undefined> {
  const worker = await db
    .selectFrom('workers')
    .select(['id', 'name'])
    .where('credentialHash', '=', vault.digest('worker-credential', credential))
    .executeTakeFirst()
  return worker && { kind: 'worker', workerId: worker.id, name: worker.name }
}

/** The enrolment token this is, if it is unused and still valid; whoever enrols uses it up. */
export async function authenticateEnrolment(
  { db, vault }: { db: Database; vault: Vault },
  token: string,
): Promise<{ kind: 'enrolment'; tokenId: string } | undefined> {
  const found = await db
    .selectFrom('enrolmentTokens')
    .select('id')
    .where('hash', '=', vault.digest('enrolment-token', token))
    .where('usedAt', 'is', null)
    .where('expiresAt', '>', sql<Date>`now()`)
    .executeTakeFirst()
  return found && { kind: 'enrolment', tokenId: found.id }
}
