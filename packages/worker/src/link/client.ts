import { setTimeout as sleep } from 'node:timers/promises'
import { type Endpoint, type Endpoints, endpoints } from '@paws/api'
import type { Logger } from 'pino'
import { type Dispatcher, Pool } from 'undici'

/** What a worker may ask of the control plane by one JSON call. */
export type LinkCall = {
  [K in keyof Endpoints]: Endpoints[K] extends { access: 'worker' | 'enrolment'; method: 'post' } ? K : never
}[keyof Endpoints]

type Body<Id extends LinkCall> = Endpoints[Id]['body'] extends { _zod: { input: infer I } } ? I : never
type Answers<Id extends LinkCall> = Endpoints[Id]['returns'][keyof Endpoints[Id]['returns']]
export type Answer<Id extends LinkCall> = Answers<Id> extends { _zod: { output: infer O } } ? O : undefined

export interface CallOptions<Id extends LinkCall> {
  params?: Record<string, string>
  body: Body<Id>
  signal?: AbortSignal
  /** How long to wait for the whole answer; 15 s unless set */
  timeoutMs?: number
}

/** The worker's own connections to the control plane: the only way it speaks to the rest of paws. */
export interface Link {
  readonly url: URL
  /** Asks once; rejects with LinkError */
  call<Id extends LinkCall>(id: Id, options: CallOptions<Id>): Promise<Answer<Id>>
  /** For bodies that are bytes; the answer's body must be read or destroyed. Rejects with LinkError for any but a 2xx */
  bytes(options: {
    method: 'GET' | 'PUT'
    path: string
    body?: Dispatcher.DispatchOptions['body']
    headers?: Record<string, string>
    signal?: AbortSignal
  }): Promise<Dispatcher.ResponseData>
  close(): Promise<void>
}

/** The control plane answered with an error, or did not answer; then `status` is 0. */
export class LinkError extends Error {
  override name = 'LinkError'
  readonly status: number
  readonly code: string

  constructor(status: number, code: string, message: string, options?: ErrorOptions) {
    super(message, options)
    this.status = status
    this.code = code
  }

  /** Whether the same question can have another answer later. */
  get passing(): boolean {
    return this.status === 0 || this.status >= 500 || this.status === 408 || this.status === 429
  }
}

export function openLink(options: { url: URL; credential: string }): Link {
  const { url } = options
  // A connection that the server closed just now would fail a call: keep them shorter than any server does.
  const pool = new Pool(url.origin, { keepAliveTimeout: 4_000, headersTimeout: 0, bodyTimeout: 300_000 })
  const authorization = `Bearer ${options.credential}`
  const base = url.pathname.replace(/\/$/, '')

  async function request(what: Dispatcher.RequestOptions): Promise<Dispatcher.ResponseData> {
    const response = await pool.request(what).catch((error: Error) => {
      const { method, path } = what
      throw new LinkError(0, 'UNREACHABLE', `${method} ${path} at ${url.origin} failed: ${error.message}`, {
        cause: error,
      })
    })
    if (response.statusCode < 300) return response
    throw await refusal(response, `${what.method} ${what.path}`)
  }

  return {
    url,
    async call(id, { params = {}, body, signal, timeoutMs = 15_000 }) {
      const endpoint: Endpoint = endpoints[id]
      const deadline = AbortSignal.timeout(timeoutMs)
      const response = await request({
        method: 'POST',
        path: base + pathOf(endpoint, params),
        headers: { authorization, 'content-type': 'application/json' },
        body: JSON.stringify(body),
        signal: signal ? AbortSignal.any([signal, deadline]) : deadline,
      })
      return (await parse(endpoint, response)) as never
    },
    bytes: ({ headers, ...what }) =>
      request({ ...what, path: base + what.path, headers: { ...headers, authorization } }),
    close: () => pool.destroy(),
  }
}

function pathOf(endpoint: Endpoint, params: Record<string, string>): string {
  return endpoint.path.replace(/\{(\w+)\}/g, (_, name: string) => {
    const value = params[name]
    if (value === undefined) throw new TypeError(`${endpoint.path} needs "${name}"`)
    return encodeURIComponent(value)
  })
}

async function parse(endpoint: Endpoint, response: Dispatcher.ResponseData): Promise<unknown> {
  const returned = endpoint.returns[response.statusCode]
  try {
    if (!returned || 'kind' in returned) return void (await response.body.dump())
    return returned.parse(await response.body.json())
  } catch (error) {
    throw new LinkError(0, 'BAD_ANSWER', `The answer to ${endpoint.path} can't be read`, { cause: error })
  }
}

async function refusal(response: Dispatcher.ResponseData, what: string): Promise<LinkError> {
  // The error's body is a help only: without a readable one the status says enough.
  const body = (await response.body.json().catch(() => undefined)) as
    | { error?: { code?: string; message?: string } }
    | undefined
  const { code = 'UNKNOWN', message = 'no reason given' } = body?.error ?? {}
  return new LinkError(response.statusCode, code, `${what} was refused with ${response.statusCode} ${code}: ${message}`)
}

export interface RetryOptions {
  /** For the log: what is tried */
  name: string
  log: Logger
  signal?: AbortSignal
}

/** Tries until it succeeds, is refused for good, or `signal` aborts; then rejects with what happened last. */
export async function retry<T>(attempt: () => Promise<T>, { name, log, signal }: RetryOptions): Promise<T> {
  for (let failures = 0; ; failures++) {
    try {
      return await attempt()
    } catch (error) {
      if (signal?.aborted || !(error instanceof LinkError) || !error.passing) throw error
      if (failures === 3) log.warn({ err: error }, `${name} keeps failing; trying on`)
      await sleep(backoffMs(failures), undefined, { signal })
    }
  }
}

/** Doubles from 100 ms to 5 s, with half of it left to chance, so that a fleet doesn't come back in step. */
export function backoffMs(failures: number): number {
  const longest = Math.min(5_000, 100 * 2 ** Math.min(failures, 10))
  return longest / 2 + (Math.random() * longest) / 2
}
