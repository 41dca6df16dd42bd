import type { IncomingMessage } from 'node:http'
import type { Socket } from 'node:net'
import type { EgressReason } from '@paws/api'
import type { Dispatcher } from 'undici'
import { createAnswer } from './answer.ts'
import type { Exchange } from './exchange.ts'
import { Failure } from './failure.ts'
import { noteOf, refusalFor, refuse, refusedFor, type Way } from './forward.ts'
import { sentHeaders } from './inject.ts'
import { type Admission, judge, type Verdict } from './judge.ts'
import { swapText } from './scrub/index.ts'
import { asksForWebSocket, relayWebSocket } from './websocket.ts'

/** Lets a WebSocket out, or refuses it, as any other change of protocol. */
export async function upgrade(way: Way, exchange: Exchange, request: IncomingMessage, head: Buffer): Promise<void> {
  exchange.connection.socket.on('error', () => exchange.abort())
  const room = way.records.room()
  if (room) await room
  const startedAt = performance.now()
  const verdict = verdictOn(way, exchange, request)
  if ('admission' in verdict) return relay(way, exchange, request, head, verdict.admission, startedAt)
  const note = noteOf(way, exchange, startedAt)
  refuse(exchange, verdict.refusal)
  note({ decision: 'refused', reason: verdict.refusal.reason, status: verdict.refusal.status })
}

/** Of one sandbox: each may hold a message of some length, both ways, until the whole of it has come. */
const MOST_WEB_SOCKETS = 64

function verdictOn(way: Way, exchange: Exchange, request: IncomingMessage): Verdict {
  if (!asksForWebSocket(request)) return notWebSocket
  const verdict = judge(way.rules(), exchange)
  return 'refusal' in verdict || way.webSockets < MOST_WEB_SOCKETS ? verdict : tooMany
}

const tooMany: Verdict = {
  refusal: {
    status: 429,
    reason: 'too-many-connections',
    message: `There are ${MOST_WEB_SOCKETS} WebSockets open already: close one of them.`,
  },
}

const notWebSocket: Verdict = {
  refusal: {
    status: 501,
    reason: 'upgrade-refused',
    message: 'Only a well-formed request for a WebSocket (version 13) may change the protocol.',
  },
}

async function relay(
  way: Way,
  exchange: Exchange,
  request: IncomingMessage,
  head: Buffer,
  { host, name, target, credential }: Admission,
  startedAt: number,
): Promise<void> {
  const { socket, open, tls } = exchange.connection
  const note = noteOf(way, exchange, startedAt)
  const secrets = host.credential !== undefined && way.scrub ? way.rules()?.secrets : undefined
  const swaps = credential?.placeholders.none === false ? credential.placeholders : undefined
  const used = credential !== undefined && { credential: true }
  let isOver = false
  let upstream: Socket | undefined

  const over = (rest: Parameters<typeof note>[0]) => {
    if (isOver) return
    isOver = true
    way.webSockets--
    open.delete(breakOff)
    note({ ...rest, ...used })
  }
  const fail = (failure: Failure, answered?: { status: number; bytes: number }) => {
    const refusal = refusalFor(failure)
    if (answered) exchange.abort()
    else refuse(exchange, refusal)
    const decision = refusedFor.has(failure.reason) ? 'refused' : 'allowed'
    over({ decision, reason: failure.reason, status: answered?.status ?? refusal.status })
  }
  const breakOff = (reason?: EgressReason) => {
    over({ decision: 'allowed', reason })
    upstream?.destroy()
    socket.destroy()
  }
  open.add(breakOff)
  way.webSockets++

  try {
    upstream = await way.hosts.dial({ name, tls, operator: host.operator })
  } catch (error) {
    return fail(error as Failure)
  }
  if (isOver || socket.destroyed) {
    upstream.destroy()
    return over({ decision: 'allowed' })
  }
  relayWebSocket({
    request,
    socket,
    head,
    upstream,
    host: name,
    target: swaps ? swapText(swaps, target, 'url') : target,
    headers: sentHeaders(exchange.headers, {
      name,
      searched: host.credential !== undefined,
      credential,
      git: false,
      dropLength: true,
      dropEncoding: false,
    }),
    secrets,
    placeholders: swaps,
    held: way.messages,
    declined: (answer) =>
      handOn(
        answer,
        createAnswer({
          exchange,
          name,
          secrets,
          again: () => false,
          ended: ({ status, bytes }) => over({ decision: 'allowed', status, responseBytes: bytes }),
          failed: fail,
          left: () => over({ decision: 'allowed' }),
        }),
      ),
    failed: (cause) => fail(new Failure('upstream-unreachable', `${name} did not take the WebSocket.`, { cause })),
    ended: (sizes) => over({ decision: 'allowed', status: 101, ...sizes }),
  })
}

/** The host's answer by HTTP instead goes the way of all answers. */
function handOn(answer: IncomingMessage, handler: ReturnType<typeof createAnswer>): void {
  const controller = {
    aborted: false,
    paused: false,
    reason: null,
    abort: () => void answer.destroy(),
    pause: () => void answer.pause(),
    resume: () => void answer.resume(),
  } satisfies Dispatcher.DispatchController
  handler.onRequestStart?.(controller, undefined)
  try {
    handler.onResponseStart?.(controller, answer.statusCode ?? 502, answer.headers, answer.statusMessage)
  } catch (error) {
    handler.onResponseError?.(controller, error as Error)
    answer.destroy()
    return
  }
  answer.on('data', (chunk: Buffer) => handler.onResponseData?.(controller, chunk))
  answer.once('end', () => handler.onResponseEnd?.(controller, {}))
  answer.on('error', (error) => handler.onResponseError?.(controller, error))
}
