import type { Logger } from 'pino'
import type { Blobs } from './blobs/index.ts'
import type { Config } from './config.ts'
import type { Database } from './database/index.ts'
import type { Deliveries } from './delivery/index.ts'
import type { Events } from './events/index.ts'
import type { Tunnels } from './fleet/index.ts'
import type { Jobs } from './jobs/index.ts'
import type { Keys } from './organizations/index.ts'
import type { Vault } from './vault/index.ts'

/** What is opened once, in main.ts, and handed to the handlers. Rooms take the one or two of these that they need. */
export interface Services {
  config: Config
  log: Logger
  db: Database
  vault: Vault
  /** Who an API key belongs to */
  keys: Keys
  blobs: Blobs
  /** LISTEN/NOTIFY and the streams of events */
  events: Events
  deliveries: Deliveries
  /** Background jobs, on pg-boss */
  jobs: Jobs
  /** Connections that workers dialled, by which sandboxes are reached */
  tunnels: Tunnels
}
