import { sealedWebhookSecrets } from '../organizations/index.ts'
import { sealedSecrets } from '../secrets/index.ts'
import { sealedSessionSecrets } from '../sessions/index.ts'
import type { SealedColumn } from '../vault/index.ts'
import { sealedAnswers } from './idempotency.ts'

/** All columns that hold what a data key has sealed. One that were missing would not outlive the key's replacement. */
export const sealedColumns: SealedColumn[] = [
  sealedSecrets,
  sealedSessionSecrets,
  ...sealedWebhookSecrets,
  sealedAnswers,
]
