import { Json, nextCursor, pageQuery, pathId, resumeQuery, Timestamp } from './common.ts'
import { endpoint } from './endpoint.ts'
import { sessionEnded, sessionStatuses } from './lifecycles.ts'
import { EgressRecord, Network, NetworkShown } from './network.ts'
import { z } from './zod.ts'

export const SessionStatus = z.enum(sessionStatuses).openapi('SessionStatus', {
  description:
    '`pending` waits for a slot · `running` · `completed` exit code 0 · `failed` another exit code, or the sandbox was lost (see `error`) · `timeout` ran past `timeoutMs` · `cancelled`',
})

export const Isolation = z.enum(['process', 'qemu/tcg', 'qemu/kvm', 'firecracker']).openapi('Isolation')

export const noNul = (value: string) => !value.includes('\0')

/** Environment of a program inside: names to values, any text but NUL. Not for secrets. */
export const Env = z
  .record(
    z
      .string()
      .min(1)
      .max(256)
      .refine((name) => noNul(name) && !name.includes('='), 'An env name must not contain "=" or NUL'),
    z.string().max(131_000).refine(noNul, 'An env value must not contain NUL'),
  )
  .openapi({ description: 'Environment variables, each value at most 131000 bytes. Not for secrets' })

export const Resources = z.strictObject({
  vcpus: z.int().min(1).max(8).default(2),
  memoryMB: z.int().min(256).max(16_384).default(4096),
  diskMB: z.int().min(256).max(102_400).default(10_240),
})

const Workload = z.strictObject({
  type: z.literal('script'),
  script: z
    .string()
    .min(1)
    .openapi({ description: 'Run as root inside, in /workspace, by its `#!` line or bash; arrives byte for byte' }),
  env: Env.optional(),
})

export const CreateSession = z
  .strictObject({
    snapshot: z.string().min(1).max(100).openapi({ description: 'Id of a snapshot or a template', example: 'minimal' }),
    workload: Workload,
    resources: Resources.prefault({}),
    timeoutMs: z.int().min(1).max(86_400_000).default(600_000),
    network: Network.prefault({}),
    isolation: z
      .enum(['any', 'vm'])
      .default('any')
      .openapi({ description: '`vm` demands a microVM; nothing weaker runs it' }),
    callbackUrl: z
      .url({ protocol: /^https?$/ })
      .max(2000)
      .optional()
      .openapi({
        description: 'Public https URL that gets the ended session, signed by Standard Webhooks',
      }),
    metadata: z
      .record(z.string(), Json)
      .refine((m) => Buffer.byteLength(JSON.stringify(m)) <= 16_384, 'Metadata must not be longer than 16 KB as JSON')
      .optional()
      .openapi({ description: 'Opaque; answered as it came; at most 16 KB as JSON' }),
  })
  .superRefine(({ workload, network }, context) => {
    for (const [host, { placeholders }] of Object.entries(network.credentials)) {
      for (const name of Object.keys(placeholders).filter((each) => Object.hasOwn(workload.env ?? {}, each))) {
        const path = ['network', 'credentials', host, 'placeholders', name]
        context.addIssue({ code: 'custom', path, message: 'Stands in workload.env, too: take it out of one of them' })
      }
    }
  })
  .openapi('CreateSession')

export const SessionAccepted = z.object({ sessionId: z.uuid(), status: SessionStatus }).openapi('SessionAccepted')

export const Session = z
  .object({
    sessionId: z.uuid(),
    status: SessionStatus,
    snapshot: z.string(),
    exitCode: z
      .int()
      .optional()
      .openapi({ description: 'Exit status of the script (128 + signal if one killed it); absent until it has ended' }),
    stdout: z.string().optional().openapi({ description: 'What has come so far; the last 1 MiB' }),
    stderr: z.string().optional().openapi({ description: 'What has come so far; the last 1 MiB' }),
    truncated: z
      .boolean()
      .optional()
      .openapi({ description: 'Whether stdout or stderr lacks its beginning; the whole is at /logs' }),
    output: Json.optional().openapi({ description: 'The JSON that the script left in /output/result.json' }),
    error: z.object({ code: z.string(), message: z.string() }).optional().openapi({
      description: 'Why a session failed without an exit code, or why its output could not be read',
    }),
    createdAt: Timestamp,
    startedAt: Timestamp.optional(),
    completedAt: Timestamp.optional(),
    durationMs: z.int().nonnegative().optional().openapi({ description: 'Wall time from start to end' }),
    worker: z.string().optional().openapi({ description: 'Name of the worker that ran it' }),
    isolation: Isolation.optional(),
    metadata: z.record(z.string(), Json).optional(),
    resources: z.object({ vcpus: z.int(), memoryMB: z.int(), diskMB: z.int() }),
    timeoutMs: z.int(),
    vcpuSeconds: z.number().nonnegative().optional().openapi({ description: 'vcpus × seconds run' }),
    callbackUrl: z.string().optional(),
    network: NetworkShown,
  })
  .openapi('Session')

/** What a list shows of each: everything but its output. */
export const SessionSummary = Session.omit({ stdout: true, stderr: true, truncated: true, output: true }).openapi(
  'SessionSummary',
)

export const sessionParams = z.object({ sessionId: pathId('UUID of the session') })

/** Events of a session's stream; their ids count up from 1 without gaps. */
export const sessionEvents = {
  status: z.object({
    status: SessionStatus,
    reason: z.string().optional().openapi({ description: 'Why it waits, or why it ended so' }),
  }),
  stdout: z.object({ text: z.string() }),
  stderr: z.object({ text: z.string() }),
  egress: z.object({ requests: z.array(EgressRecord) }),
  done: Session.omit({ stdout: true, stderr: true }),
}

export const createSession = endpoint({
  method: 'post',
  path: '/v1/sessions',
  access: 'sessions:write',
  tag: 'Sessions',
  summary: 'Run a script in a throw-away sandbox',
  description:
    'Answers once the session is stored; it then waits `pending` for a slot. An acknowledged session is never lost.',
  body: CreateSession,
  idempotent: true,
  returns: { 202: SessionAccepted },
  errors: ['SNAPSHOT_NOT_FOUND', 'CAPACITY_EXHAUSTED'],
})

export const getSession = endpoint({
  method: 'get',
  path: '/v1/sessions/{sessionId}',
  access: 'sessions:read',
  tag: 'Sessions',
  summary: 'Get a session with its output so far',
  params: sessionParams,
  returns: { 200: Session },
  errors: ['SESSION_NOT_FOUND'],
})

export const listSessions = endpoint({
  method: 'get',
  path: '/v1/sessions',
  access: 'sessions:read',
  tag: 'Sessions',
  summary: 'List sessions, newest first',
  description:
    'Filter by `status` and by metadata: `metadata.KEY=VALUE` compares the text of one top-level key (at most 10 of them).',
  query: z.object({ ...pageQuery, status: SessionStatus.optional() }).catchall(z.string().max(1000)),
  returns: { 200: z.object({ sessions: z.array(SessionSummary), nextCursor }) },
  errors: [],
})

export const cancelSession = endpoint({
  method: 'delete',
  path: '/v1/sessions/{sessionId}',
  access: 'sessions:write',
  tag: 'Sessions',
  summary: 'Cancel a session',
  description:
    'Answers once every process of it is gone (SIGTERM, 5 s, SIGKILL). One that had ended keeps its status, and that status is answered.',
  params: sessionParams,
  returns: { 200: z.object({ sessionId: z.uuid(), status: z.enum(sessionEnded) }) },
  errors: ['SESSION_NOT_FOUND', 'WORKER_UNREACHABLE'],
})

export const streamSessionEvents = endpoint({
  method: 'get',
  path: '/v1/sessions/{sessionId}/events',
  access: 'sessions:read',
  tag: 'Sessions',
  summary: "Stream a session's status and output",
  description:
    'From the first event, or after `Last-Event-ID`; ends after `done`. `: ping` every 15 s. A client that leaves cancels nothing.',
  params: sessionParams,
  query: z.object(resumeQuery),
  returns: {
    200: { kind: 'events', description: 'The events so far, then each as it happens', events: sessionEvents },
  },
  errors: ['SESSION_NOT_FOUND'],
})

export const getSessionLogs = endpoint({
  method: 'get',
  path: '/v1/sessions/{sessionId}/logs',
  access: 'sessions:read',
  tag: 'Sessions',
  summary: 'Get the whole output as bytes',
  description: 'As written, up to 64 MiB a stream.',
  params: sessionParams,
  query: z.object({ stream: z.enum(['stdout', 'stderr']).default('stdout') }),
  returns: { 200: { kind: 'bytes', description: 'The stream so far', contentType: 'application/octet-stream' } },
  errors: ['SESSION_NOT_FOUND'],
})

export const listSessionEgress = endpoint({
  method: 'get',
  path: '/v1/sessions/{sessionId}/egress',
  access: 'sessions:read',
  tag: 'Sessions',
  summary: 'List the outgoing requests of a session, newest first',
  description: 'Refused ones always, the others with `network.auditLog`.',
  params: sessionParams,
  query: z.object({ ...pageQuery, decision: EgressRecord.shape.decision.optional() }),
  returns: {
    200: z.object({
      requests: z.array(EgressRecord),
      truncated: z
        .boolean()
        .optional()
        .openapi({ description: 'Whether there were more than are kept: 64 MiB, of which these are the first' }),
      nextCursor,
    }),
  },
  errors: ['SESSION_NOT_FOUND'],
})
