import type { SessionClaim } from '@paws/api'
import type { Logger } from 'pino'
import type { z } from 'zod'
import type { Database } from '../database/index.ts'
import { type Aftermath, failClaimed, openRules } from '../sessions/index.ts'
import { UnreadableError, type Vault } from '../vault/index.ts'
import type { Taken } from './claim-sessions.ts'

export interface OpeningServices extends Aftermath {
  db: Database
  vault: Vault
  log: Logger
}

/**
 * Opens the secrets of sessions that a worker has taken, for this worker. One whose secrets can't be opened fails, as
 * no worker could ever run it; the others are none the worse for it.
 */
export async function openTaken(
  services: OpeningServices,
  workerId: string,
  taken: Taken[],
): Promise<z.input<typeof SessionClaim>[]> {
  const { db, vault, log } = services
  const opened: z.input<typeof SessionClaim>[] = []
  for (const { orgId, network, sealedSecrets, ...claim } of taken) {
    const { sessionId, fence } = claim
    try {
      const rules = await openRules(db, vault, { id: sessionId, orgId, network, sealedSecrets })
      opened.push({ ...claim, network: rules })
    } catch (error) {
      if (!(error instanceof UnreadableError)) throw error
      log.error({ err: error, sessionId }, 'the secrets of a session could not be opened')
      const message = "The session's secrets could not be opened: the log of the control plane says why"
      await failClaimed(db, services, { sessionId, workerId, fence }, { code: 'SECRETS_UNREADABLE', message })
    }
  }
  return opened
}
