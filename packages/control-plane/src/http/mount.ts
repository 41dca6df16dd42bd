import type { IncomingMessage, ServerResponse } from 'node:http'
import type { HttpBindings } from '@hono/node-server'
import { RESPONSE_ALREADY_SENT } from '@hono/node-server/utils/response'
import { type Endpoint, endpoints, isBytesBody, type OperationId } from '@paws/api'
import { type Context, Hono } from 'hono'
import type { Logger } from 'pino'
import { ApiError } from '../errors.ts'
import type { Services } from '../services.ts'
import { authenticate, type Caller } from './authenticate.ts'
import { ClientGone, defaultLimitBytes, discardRest, limitedStream, readJson } from './body.ts'
import { answerError, makeRequestId, replayedHeader } from './errors.ts'
import type { Handlers, Reply } from './handler.ts'
import { answerOnce, ReplayedError } from './idempotency.ts'
import { type KeyWatch, watchKeys } from './key-watch.ts'
import { writeReply } from './reply.ts'
import { takeUpgrade, upgradeOf } from './upgrade.ts'
import { validateBody, validateParams, validateQuery } from './validate.ts'

export type App = Hono<{ Bindings: HttpBindings }>

export interface MountOptions {
  handlers: Handlers
  /** Aborts when the server stops: what would wait for long ends */
  stopping: AbortSignal
  /** Sees every answer before it is written, without a reply if it is an error's; tests hold it against the contract */
  onAnswer?: (operation: OperationId, status: number, reply?: Reply) => void
}

/** One operation as the loop sees it: its contract's schemas have made the input fit its handler. */
interface Operation {
  id: OperationId
  endpoint: Endpoint
  handler: (input: unknown, services: Services) => Promise<Reply>
}

/** What every request of one application shares. */
interface Mounted {
  services: Services
  options: MountOptions
  /** Requests under way, whose waiting ends when the server stops */
  underWay: Set<AbortController>
  keyWatch: KeyWatch
}

/** One request on its way through. */
interface Exchange {
  request: IncomingMessage
  response: ServerResponse
  headers: Headers
  params: Record<string, string>
  url: string
  requestId: string
  log: Logger
  /** Aborts at its end, which it may bring about */
  controller: AbortController
}

/** Builds the HTTP application out of the contract: there is no other way for a route to come into being. */
export function mountApi(services: Services, options: MountOptions): App {
  const app: App = new Hono()
  const keyWatch = watchKeys(services.keys, services.log, options.stopping)
  const mounted: Mounted = { services, options, underWay: new Set(), keyWatch }
  options.stopping.addEventListener('abort', () => {
    for (const controller of mounted.underWay) controller.abort()
  })
  const methodsOf = new Map<string, string[]>()
  for (const [id, endpoint] of Object.entries(endpoints) as [OperationId, Endpoint][]) {
    const operation = { id, endpoint, handler: options.handlers[id] as Operation['handler'] }
    const path = endpoint.path.replaceAll(/\{(\w+)\}/g, ':$1')
    const method = endpoint.method.toUpperCase()
    methodsOf.set(path, [...(methodsOf.get(path) ?? []), method])
    app.on(method, path, (c) => exchange(c, mounted, id, (ex) => serve(ex, operation, mounted)))
  }
  for (const [path, methods] of methodsOf) {
    app.all(path, (c) => exchange(c, mounted, null, (ex) => refuseMethod(ex, methods)))
  }
  app.notFound((c) => exchange(c, mounted, null, refusePath))
  return app
}

async function exchange(
  c: Context<{ Bindings: HttpBindings }>,
  { services, options, underWay }: Mounted,
  operation: OperationId | null,
  work: (exchange: Exchange) => Promise<void>,
): Promise<Response> {
  const { incoming: request, outgoing: response } = c.env
  const requestId = makeRequestId()
  const log = services.log.child({ requestId, operation })
  response.setHeader('X-Request-Id', requestId)
  const controller = new AbortController()
  underWay.add(controller)
  const connection = upgradeOf(request)?.socket ?? response
  connection.once('close', () => {
    underWay.delete(controller)
    controller.abort()
  })
  try {
    const { headers, url } = c.req.raw
    await work({ request, response, headers, params: c.req.param(), url, requestId, log, controller })
  } catch (error) {
    if (error instanceof ClientGone || response.destroyed) log.debug({ err: error }, 'the client went away')
    else {
      if (error instanceof ReplayedError) response.setHeader(replayedHeader, 'true')
      const status = answerError(request, response, error, { requestId, log })
      if (operation) options.onAnswer?.(operation, status)
    }
  }
  // A body that nobody asked for may never end, and would keep the connection.
  if (!request.complete && !upgradeOf(request)) discardRest(request)
  return RESPONSE_ALREADY_SENT
}

async function serve(ex: Exchange, { id, endpoint, handler }: Operation, mounted: Mounted): Promise<void> {
  const { services, options } = mounted
  const caller = await authenticate(endpoint.access, ex.request.headers, services)
  if (caller?.kind === 'key') mounted.keyWatch.add(caller.keyId, ex.controller)
  const params = validateParams(endpoint.params, ex.params)
  const query = validateQuery(endpoint.query, new URL(ex.url).searchParams)
  if (101 in endpoint.returns && !upgradeOf(ex.request)) throw refuseWithoutUpgrade()
  const { body, raw } = await readBody(ex.request, endpoint)
  const { headers, requestId, log } = ex
  const { signal } = ex.controller
  const run = () => handler({ params, query, body, caller, headers, requestId, log, signal }, services)
  const reply = endpoint.idempotent ? await runOnce(ex, id, caller, params, raw, services, run) : await run()
  if (!(reply.status in endpoint.returns)) throw new Error(`${id} answered ${reply.status}, which its contract lacks`)
  options.onAnswer?.(id, reply.status, reply)
  if ('upgrade' in reply) takeUpgrade(ex.request, ex.response, reply.upgrade)
  else await writeReply(ex.request, ex.response, reply, signal)
}

async function readBody(request: IncomingMessage, { body, bodyLimitBytes }: Endpoint) {
  if (!body) return { body: undefined, raw: Buffer.alloc(0) }
  if (isBytesBody(body)) return { body: limitedStream(request, body.limitBytes), raw: Buffer.alloc(0) }
  const { raw, value } = await readJson(request, bodyLimitBytes ?? defaultLimitBytes)
  return { body: validateBody(body, value), raw }
}

async function runOnce(
  ex: Exchange,
  operation: OperationId,
  caller: Caller,
  params: unknown,
  rawBody: Buffer,
  services: Services,
  run: () => Promise<Reply>,
): Promise<Reply> {
  const key = ex.headers.get('idempotency-key')
  if (key === null || caller?.kind !== 'key') return run()
  const { reply, replayed } = await answerOnce(services, { caller, operation, key, params, rawBody }, run)
  if (replayed) ex.response.setHeader(replayedHeader, 'true')
  return reply
}

async function refuseMethod({ request, response }: Exchange, methods: string[]): Promise<never> {
  response.setHeader('Allow', methods.join(', '))
  throw new ApiError('METHOD_NOT_ALLOWED', `${request.method} is not possible here: ${methods.join(', ')} is`)
}

async function refusePath({ request, url }: Exchange): Promise<never> {
  throw new ApiError('NOT_FOUND', `There is no ${request.method} ${new URL(url).pathname}: see /reference`)
}

function refuseWithoutUpgrade(): ApiError {
  const message = 'This opens a connection: ask with "Connection: Upgrade"'
  return new ApiError('VALIDATION_ERROR', message, { details: [{ path: 'Upgrade', message }] })
}
