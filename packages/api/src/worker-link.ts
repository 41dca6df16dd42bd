import { Json, pathId } from './common.ts'
import { endpoint } from './endpoint.ts'
import { EgressRules } from './network.ts'
import { Isolation } from './sessions.ts'
import { z } from './zod.ts'

/** What only workers say and are told. Workers belong to the operator; they never touch the database. */

export const WorkerState = z
  .strictObject({
    version: z.string().max(100),
    isolation: Isolation,
    limitations: z.array(z.string().max(1000)).max(50),
    maxSessions: z.int().min(1).max(10_000),
    resources: z.strictObject({ vcpus: z.int().min(1), memoryMB: z.int().min(1), diskMB: z.int().min(0) }),
    snapshots: z.array(z.string().max(100)).max(1000).openapi({ description: 'Digests held unpacked' }),
  })
  .openapi('WorkerState')

export const enrolWorker = endpoint({
  method: 'post',
  path: '/worker/enrol',
  access: 'enrolment',
  tag: 'Worker link',
  summary: 'Turn a one-time token into a credential of its own',
  description: 'A name that is taken gets a number behind it; the name in the answer counts.',
  body: z.strictObject({
    name: z.string().regex(/^[a-z0-9][a-z0-9-]{0,62}$/, 'A worker name is a host label: a-z, 0-9, "-"'),
    state: WorkerState,
  }),
  returns: {
    201: z.object({ workerId: z.string(), name: z.string(), credential: z.string().openapi({ example: '***' }) }),
  },
  errors: [],
})

/** One piece of work held under a lease; `fence` goes with every report about it. */
const Held = z.strictObject({ kind: z.enum(['session', 'build']), id: z.string().max(100), fence: z.int().min(1) })

export const heartbeat = endpoint({
  method: 'post',
  path: '/worker/heartbeat',
  access: 'worker',
  tag: 'Worker link',
  summary: 'Renew the leases of what runs here',
  body: z.strictObject({ state: WorkerState, held: z.array(Held).max(10_000) }),
  returns: {
    200: z.object({
      leaseMs: z.int().openapi({ description: 'From now, for each that was renewed' }),
      lost: z
        .array(z.string())
        .openapi({ description: 'Ids whose lease is no longer this worker’s: stop them, report nothing' }),
      cancel: z.array(z.string()).openapi({ description: 'Ids that a user has cancelled: stop them and report' }),
      draining: z.boolean(),
    }),
  },
  errors: [],
})

export const SnapshotReference = z.object({
  id: z.string(),
  digest: z.string().openapi({ example: 'sha256:2c26b46b68ff…' }),
})

export const SessionClaim = z.object({
  kind: z.literal('session'),
  sessionId: z.uuid(),
  fence: z.int(),
  leaseMs: z.int(),
  snapshot: SnapshotReference,
  script: z.string(),
  env: z.record(z.string(), z.string()),
  resources: z.object({ vcpus: z.int(), memoryMB: z.int(), diskMB: z.int() }),
  timeoutMs: z.int(),
  network: EgressRules,
})

/** A build from a template of this worker's, or from an organization's own config. */
export const BuildClaim = z.object({
  kind: z.literal('build'),
  jobId: z.string(),
  fence: z.int(),
  leaseMs: z.int(),
  snapshotId: z.string(),
  template: z
    .string()
    .nullable()
    .openapi({ description: 'A folder of `snapshots/` that the worker ships with; null for a config' }),
  config: z
    .object({
      organization: z.string(),
      setup: z.string(),
      requiredDomains: z.array(z.string()),
      resources: z.object({ vcpus: z.int(), memoryMB: z.int(), diskMB: z.int() }),
    })
    .nullable(),
  base: SnapshotReference.nullable().openapi({ description: 'What the setup is run in; null for the first of all' }),
})

export const claim = endpoint({
  method: 'post',
  path: '/worker/claim',
  access: 'worker',
  tag: 'Worker link',
  summary: 'Wait for work, at most 25 s',
  body: z.strictObject({
    sessions: z.int().min(0).max(1000).openapi({ description: 'Free slots' }),
    builds: z.int().min(0).max(10),
    waitMs: z.int().min(0).max(25_000).default(25_000),
  }),
  returns: { 200: z.object({ claims: z.array(z.discriminatedUnion('kind', [SessionClaim, BuildClaim])) }) },
  errors: [],
})

const sessionParams = z.object({ sessionId: pathId('UUID of the session') })
const buildParams = z.object({ jobId: pathId('Id of the build') })
const fence = z.int().min(1)

/** Most that is kept of one stream of a session: 64 MiB. The worker cuts there, and the control plane if it doesn't. */
export const streamLimitBytes = 64 * 1024 * 1024
/** The last of a stream that was cut. */
export const cutMarker = '\n[paws: what came after the first 64 MiB was dropped]\n'

/** Most that is kept of a session's records of outgoing requests: 64 MiB of JSON. */
export const egressLimitBytes = 64 * 1024 * 1024

/** A piece of output: base64 bytes of one stream, cut between characters where they are UTF-8; of `egress`, one JSON array of EgressRecord. */
const Chunk = z.strictObject({ stream: z.enum(['stdout', 'stderr', 'egress']), data: z.base64() })
const chunks = z.array(Chunk).max(1000)

export const reportOutput = endpoint({
  method: 'post',
  path: '/worker/sessions/{sessionId}/output',
  access: 'worker',
  tag: 'Worker link',
  summary: 'Deliver numbered pieces of output; those already stored are passed over',
  params: sessionParams,
  body: z.strictObject({
    fence,
    first: z.int().min(1).openapi({ description: 'Number of the first piece; they count from 1' }),
    chunks,
  }),
  bodyLimitBytes: 8 * 1024 * 1024,
  returns: { 200: z.object({ stored: z.int().openapi({ description: 'Number of the last piece stored' }) }) },
  errors: ['SESSION_NOT_FOUND', 'LEASE_LOST', 'CONFLICT'],
})

export const Outcome = z.strictObject({
  status: z.enum(['completed', 'failed', 'timeout', 'cancelled']),
  exitCode: z.int().min(0).max(255).optional(),
  error: z.strictObject({ code: z.string().max(100), message: z.string().max(4000) }).optional(),
  output: Json.optional(),
  durationMs: z.int().nonnegative(),
})

export const finishSession = endpoint({
  method: 'post',
  path: '/worker/sessions/{sessionId}/finish',
  access: 'worker',
  tag: 'Worker link',
  summary: 'Settle a session with its last pieces of output; repeated until acknowledged',
  description: 'The same report again, from the same lease, is acknowledged again and changes nothing.',
  params: sessionParams,
  body: z.strictObject({ fence, outcome: Outcome, first: z.int().min(1), chunks }),
  bodyLimitBytes: 8 * 1024 * 1024,
  returns: { 200: z.object({ status: z.string() }) },
  errors: ['SESSION_NOT_FOUND', 'LEASE_LOST', 'CONFLICT'],
})

export const reportBuild = endpoint({
  method: 'post',
  path: '/worker/builds/{jobId}/progress',
  access: 'worker',
  tag: 'Worker link',
  summary: "Deliver a build's progress and log",
  params: buildParams,
  body: z.strictObject({
    fence,
    progress: z.number().min(0).max(1),
    step: z.string().max(200),
    log: z.string().max(262_144).openapi({ description: 'What came since the last report' }),
  }),
  returns: { 204: { kind: 'empty', description: 'Stored' } },
  errors: ['BUILD_NOT_FOUND', 'LEASE_LOST'],
})

export const finishBuild = endpoint({
  method: 'post',
  path: '/worker/builds/{jobId}/finish',
  access: 'worker',
  tag: 'Worker link',
  summary: 'Settle a build; repeated until acknowledged',
  params: buildParams,
  body: z.strictObject({
    fence,
    outcome: z.discriminatedUnion('status', [
      z.strictObject({
        status: z.literal('ready'),
        digest: z.string().regex(/^sha256:[0-9a-f]{64}$/),
        sizeBytes: z.int().min(1),
      }),
      z.strictObject({ status: z.literal('failed'), error: z.string().max(4000) }),
    ]),
  }),
  returns: { 200: z.object({ status: z.string() }) },
  errors: ['BUILD_NOT_FOUND', 'LEASE_LOST', 'CONFLICT'],
})

/** Files of a snapshot: the manifest, whose SHA-256 is the snapshot's digest, and what it lists. */
const snapshotFileParams = z.object({
  digest: pathId('`sha256:` and 64 hex digits: the digest of the manifest'),
  file: pathId('`manifest.json` or `rootfs.squashfs`'),
})

/** Largest file of a snapshot: 16 GiB. */
export const snapshotFileLimitBytes = 16 * 1024 ** 3

export const putSnapshotFile = endpoint({
  method: 'put',
  path: '/worker/snapshots/{digest}/{file}',
  access: 'worker',
  tag: 'Worker link',
  summary: 'Store a file of a snapshot',
  description:
    'The manifest comes last and is refused unless it has that digest and what it lists is stored with the digests it names.',
  params: snapshotFileParams,
  body: { kind: 'bytes', description: 'The file', limitBytes: snapshotFileLimitBytes },
  returns: { 204: { kind: 'empty', description: 'Stored, now or before' } },
  errors: ['SNAPSHOT_NOT_FOUND', 'CONFLICT'],
})

export const getSnapshotFile = endpoint({
  method: 'get',
  path: '/worker/snapshots/{digest}/{file}',
  access: 'worker',
  tag: 'Worker link',
  summary: 'Fetch a file of a snapshot',
  params: snapshotFileParams,
  returns: { 200: { kind: 'bytes', description: 'The file', contentType: 'application/octet-stream' } },
  errors: ['SNAPSHOT_NOT_FOUND'],
})

export const openTunnel = endpoint({
  method: 'get',
  path: '/worker/tunnel',
  access: 'worker',
  tag: 'Worker link',
  summary: 'Upgrade to the tunnel: HTTP/2 that the worker then serves on this connection',
  description: '`Connection: Upgrade`, `Upgrade: paws-tunnel`. Without an upgrade: 400.',
  returns: { 101: { kind: 'websocket', description: 'HTTP/2 follows, the control plane being the client' } },
  errors: ['VALIDATION_ERROR'],
})
