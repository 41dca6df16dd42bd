/**
 * The contract of paws, as data: what may be asked, by whom, and what comes back.
 *
 * Glossary
 * - session: one run of a workload in a throw-away sandbox
 * - sandbox: the isolated place a session runs in; a driver makes it
 * - driver: a kind of isolation (process, qemu, firecracker)
 * - egress: what leaves a sandbox, and the one way it can
 * - credential: what is added to a session's requests to one host; its value, given or a stored secret, stays outside
 * - placeholder: a made-up value inside that becomes the real one on the way to a host
 * - preset: a name for the hosts that the worker's machine gets packages from
 * - snapshot: an immutable image that sandboxes start from; a template is one that ships with paws
 * - config: how a snapshot of an organization's own is built
 * - worker: a machine that runs sandboxes; the fleet is all of them
 * - claim: a worker's taking of a pending session; lease: how long that holds; fence: the number that tells claims apart
 * - finish: the one report that settles a session
 * - organization: a tenant; the first is the operator's
 * - caller: who asks: an API key, a worker, nobody
 * - enrolment: how a worker gets its credential
 * - delivery: the signed callback about an ended session
 * - seal: to encrypt at rest; open: the opposite
 */
export * from './common.ts'
export * from './document.ts'
export * from './endpoint.ts'
export * from './endpoints.ts'
export * from './error-codes.ts'
export * from './fleet.ts'
export * from './lifecycles.ts'
export * from './network.ts'
export * from './organizations.ts'
export * from './scopes.ts'
export * from './secrets.ts'
export * from './service.ts'
export { ExecCommand, execEvents, fileLimitBytes } from './session-io.ts'
export {
  CreateSession,
  Env,
  Isolation,
  Resources,
  Session,
  SessionAccepted,
  SessionStatus,
  SessionSummary,
  sessionEvents,
} from './sessions.ts'
export { SnapshotConfig } from './snapshot-configs.ts'
export * from './snapshot-manifest.ts'
export { Build, buildEvents, Snapshot, Template } from './snapshots.ts'
export * from './tunnel.ts'
export {
  BuildClaim,
  cutMarker,
  egressLimitBytes,
  Outcome,
  SessionClaim,
  SnapshotReference,
  snapshotFileLimitBytes,
  streamLimitBytes,
  WorkerState,
} from './worker-link.ts'
