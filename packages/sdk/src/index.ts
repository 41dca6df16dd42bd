/** The typed client of paws. Runs in Node and in browsers. */
export { buildEnded, sessionCan, sessionEnded, sessionStatuses, workerCan } from '@paws/api/lifecycles'
export { allScopes, scopes } from '@paws/api/scopes'
export { type ClientOptions, createClient, type PawsClient } from './client.ts'
export { PawsError, type PawsErrorCode } from './errors.ts'
export type { FollowOptions } from './events.ts'
export type { Fleet, Worker } from './fleet.ts'
export type { ApiKey, NewApiKey, Organization, Scope } from './organizations.ts'
export type { Secret } from './secrets.ts'
export type {
  CreateSession,
  EgressRecord,
  ExecCommand,
  ExecEvent,
  Session,
  SessionEvent,
  SessionFilter,
  SessionStatus,
  SessionSummary,
  WaitOptions,
} from './sessions.ts'
export type { Build, BuildEvent, NewSnapshotConfig, Snapshot, SnapshotConfig, Template } from './snapshots.ts'
export type { Terminal, TerminalOptions, WebSocketLike } from './terminal.ts'
