import type { ErrorCode } from './error-codes.ts'
import { type Scope, scopes } from './scopes.ts'
import type { z } from './zod.ts'

/** Who may call: anyone; a one-time enrolment token; a worker with its own credential; any API key; one with this scope. */
export type Access = 'public' | 'enrolment' | 'worker' | 'key' | Scope

/** Answers that are not one JSON body. */
export type Returned =
  | z.ZodType
  | { kind: 'empty'; description: string }
  | { kind: 'bytes'; description: string; contentType: string }
  | { kind: 'events'; description: string; events: Record<string, z.ZodType> }
  | { kind: 'websocket'; description: string }

/** A request body that is not JSON but a stream of bytes, handed to the handler unread. */
export interface BytesBody {
  kind: 'bytes'
  description: string
  /** Longest body that is read, in bytes */
  limitBytes: number
}

/** One operation of the HTTP API, as data. What serves it is elsewhere: `control-plane/src/http/handlers.ts`. */
export interface Endpoint {
  method: 'get' | 'post' | 'put' | 'patch' | 'delete'
  /** With parameters as `{name}` */
  path: `/${string}`
  access: Access
  tag: 'Sessions' | 'Snapshots' | 'Secrets' | 'Fleet' | 'Organizations' | 'Service' | 'Worker link'
  summary: string
  description?: string
  params?: z.ZodObject
  query?: z.ZodObject
  body?: z.ZodType | BytesBody
  /** Largest JSON body, in bytes; 1 MiB unless set */
  bodyLimitBytes?: number
  /** Creates or triggers something, so it honours `Idempotency-Key` */
  idempotent?: true
  returns: Record<number, Returned>
  /** Beyond those that every endpoint of its kind has (see `errorsOf`) */
  errors: readonly ErrorCode[]
}

/** Keeps the literal types of one endpoint. */
export function endpoint<const E extends Endpoint>(definition: E): E {
  return definition
}

/**
 * Every error that an endpoint can answer: its own, and those which follow from what it is.
 * INTERNAL_ERROR is documented everywhere: a bug of ours must not break a client's types.
 */
export function errorsOf(e: Endpoint): ErrorCode[] {
  const errors = new Set<ErrorCode>(e.errors)
  if (e.access !== 'public') errors.add('UNAUTHORIZED')
  if (e.access in scopes) errors.add('FORBIDDEN')
  if (e.query) errors.add('VALIDATION_ERROR')
  if (e.body) errors.add('PAYLOAD_TOO_LARGE')
  if (e.body && !isBytesBody(e.body)) errors.add('VALIDATION_ERROR').add('UNSUPPORTED_MEDIA_TYPE')
  if (e.idempotent) errors.add('IDEMPOTENCY_CONFLICT').add('VALIDATION_ERROR')
  return [...errors.add('INTERNAL_ERROR')]
}

export function isBytesBody(body: Endpoint['body']): body is BytesBody {
  return body !== undefined && 'kind' in body && body.kind === 'bytes'
}
