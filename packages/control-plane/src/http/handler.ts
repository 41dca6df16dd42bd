import type { IncomingMessage } from 'node:http'
import type { Duplex, Readable } from 'node:stream'
import type { BytesBody, Endpoint, Endpoints, OperationId, Scope } from '@paws/api'
import type { Logger } from 'pino'
import type { z } from 'zod'
import type { Services } from '../services.ts'

/** Who asks, as far as an access rule has established it. */
export interface KeyCaller {
  kind: 'key'
  orgId: string
  keyId: string
  scopes: ReadonlySet<Scope>
  /** Whether the organization is the first one, the operator's */
  operator: boolean
}
export interface WorkerCaller {
  kind: 'worker'
  workerId: string
  name: string
}
export interface EnrolmentCaller {
  kind: 'enrolment'
  tokenId: string
}

export type CallerOf<A extends Endpoint['access']> = A extends 'public'
  ? null
  : A extends 'worker'
    ? WorkerCaller
    : A extends 'enrolment'
      ? EnrolmentCaller
      : KeyCaller

type Parsed<T> = T extends z.ZodType ? z.output<T> : undefined

/** One request, authenticated and validated by its endpoint's contract. */
export interface Input<E extends Endpoint> {
  params: Parsed<E['params']>
  query: Parsed<E['query']>
  /** The parsed JSON, or the unread stream of bytes */
  body: E['body'] extends BytesBody ? Readable : Parsed<E['body']>
  caller: CallerOf<E['access']>
  headers: Headers
  requestId: string
  log: Logger
  /** Aborts when the client has gone */
  signal: AbortSignal
}

/** One event of a stream; `id` is what `Last-Event-ID` brings back. */
export interface StreamEvent {
  id?: number
  event: string
  data: unknown
}

/** What a handler answers; `http/mount` writes it. */
export type Reply =
  | { status: number; json: unknown; headers?: Record<string, string> }
  | { status: number; empty: true }
  | { status: number; bytes: Readable | Uint8Array | string; contentType: string; length?: number }
  | { status: number; events: AsyncIterable<StreamEvent> }
  /** The connection itself: called once the request's socket is handed over */
  | { status: 101; upgrade: (request: IncomingMessage, socket: Duplex, head: Buffer) => void }

export type Handler<E extends Endpoint> = (input: Input<E>, services: Services) => Promise<Reply>

/** One handler an operation; the compiler names what is missing. */
export type Handlers<Id extends OperationId = OperationId> = { [K in Id]: Handler<Endpoints[K]> }
