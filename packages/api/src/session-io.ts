import { endpoint } from './endpoint.ts'
import { Env, noNul, sessionParams } from './sessions.ts'
import { z } from './zod.ts'

/** What happens inside of running sessions: more commands, terminals, files. */

export const ExecCommand = z
  .strictObject({
    command: z
      .array(z.string().max(131_000).refine(noNul, 'An argument must not contain NUL'))
      .min(1)
      .max(4096)
      .openapi({ description: 'Program and arguments; no shell reads them', example: ['ls', '-l', '/workspace'] }),
    env: Env.optional(),
    cwd: z.string().min(1).max(4096).refine(noNul, 'A path must not contain NUL').default('/workspace'),
    stdin: z.string().optional().openapi({ description: 'Given to the program, then end-of-file' }),
    timeoutMs: z
      .int()
      .min(1)
      .max(86_400_000)
      .optional()
      .openapi({ description: 'Killed after this; default: as long as the session' }),
  })
  .openapi('ExecCommand')

export const execEvents = {
  stdout: z.object({ text: z.string() }),
  stderr: z.object({ text: z.string() }),
  exit: z.object({
    exitCode: z.int().openapi({ description: '128 + signal if one killed it' }),
    timedOut: z.boolean().optional(),
  }),
  error: z.object({ code: z.string(), message: z.string() }),
}

export const execInSession = endpoint({
  method: 'post',
  path: '/v1/sessions/{sessionId}/exec',
  access: 'sessions:write',
  tag: 'Sessions',
  summary: 'Run one more command in a running session and stream it',
  description: 'Ends with `exit`, or with `error` if the session went away. A client that leaves kills the command.',
  params: sessionParams,
  body: ExecCommand,
  returns: { 200: { kind: 'events', description: 'The output as it comes, then the exit', events: execEvents } },
  errors: ['SESSION_NOT_FOUND', 'INVALID_STATE', 'WORKER_UNREACHABLE'],
})

export const openTerminal = endpoint({
  method: 'get',
  path: '/v1/sessions/{sessionId}/terminal',
  access: 'sessions:write',
  tag: 'Sessions',
  summary: 'Open a terminal in a running session',
  description:
    'A WebSocket. Binary messages are what is typed and shown; text messages are JSON: `{"type":"resize","rows":40,"cols":120}` from the client, `{"type":"exit","exitCode":0}` from the server before it closes. Without an upgrade: 400.',
  params: sessionParams,
  query: z.object({
    rows: z.coerce.number().int().min(1).max(1000).default(24).openapi({ type: 'integer' }),
    cols: z.coerce.number().int().min(1).max(1000).default(80).openapi({ type: 'integer' }),
  }),
  returns: { 101: { kind: 'websocket', description: 'A login shell in /workspace' } },
  errors: ['SESSION_NOT_FOUND', 'INVALID_STATE', 'WORKER_UNREACHABLE'],
})

/** Largest file moved in or out of a sandbox: 256 MiB. */
export const fileLimitBytes = 256 * 1024 * 1024

const fileQuery = z.object({
  path: z.string().min(1).max(4096).refine(noNul, 'A path must not contain NUL').openapi({
    description: 'Absolute, or relative to /workspace. Regular files only; no link is followed',
  }),
})

export const readSessionFile = endpoint({
  method: 'get',
  path: '/v1/sessions/{sessionId}/files',
  access: 'sessions:read',
  tag: 'Sessions',
  summary: 'Read a file of a running session',
  description: 'At most 256 MiB.',
  params: sessionParams,
  query: fileQuery,
  returns: { 200: { kind: 'bytes', description: 'The file', contentType: 'application/octet-stream' } },
  errors: ['SESSION_NOT_FOUND', 'INVALID_STATE', 'FILE_NOT_FOUND', 'FILE_REFUSED', 'WORKER_UNREACHABLE'],
})

export const writeSessionFile = endpoint({
  method: 'put',
  path: '/v1/sessions/{sessionId}/files',
  access: 'sessions:write',
  tag: 'Sessions',
  summary: 'Write a file into a running session',
  description: 'Missing parent directories are made; the file appears whole or not at all. At most 256 MiB.',
  params: sessionParams,
  query: fileQuery.extend({
    mode: z
      .string()
      .regex(/^0?[0-7]{3}$/, 'A mode has three octal digits, like 644')
      .default('644'),
  }),
  body: { kind: 'bytes', description: 'The content', limitBytes: fileLimitBytes },
  returns: { 204: { kind: 'empty', description: 'Written' } },
  errors: ['SESSION_NOT_FOUND', 'INVALID_STATE', 'FILE_REFUSED', 'WORKER_UNREACHABLE'],
})
