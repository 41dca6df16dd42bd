import type { Readable } from 'node:stream'
import type { EgressReason, EgressRecord } from '@paws/api'
import type { Dispatcher } from 'undici'
import { createAnswer } from './answer.ts'
import { SentBody, type Swapping, swappedBody } from './body.ts'
import type { Exchange } from './exchange.ts'
import { Failure } from './failure.ts'
import { isGit, sentHeaders } from './inject.ts'
import { type Admission, judge, type Refusal } from './judge.ts'
import type { Rules } from './policy.ts'
import type { Records } from './records.ts'
import { type Placeholders, scrubText, swapText } from './scrub/index.ts'
import type { Hosts } from './upstream.ts'

/** What one sandbox's requests are decided by and go through. */
export interface Way {
  rules(): Rules | undefined
  hosts: Hosts
  records: Records
  /** False only for measuring */
  scrub: boolean
  /** Exchanges under way */
  open: number
  webSockets: number
  /** What their messages take */
  messages: { bytes: number }
  /** Bytes of bodies that wait for their end */
  held: number
}

/** Of one sandbox: HTTP/2 would let few connections ask for more than the machine has sockets. */
const MOST_OPEN = 1000
/** Answers that are read ahead of the client, and how far; many of them would fill the memory that all share. */
const MOST_AHEAD = 32
const AHEAD_BYTES = 256 * 1024
/** Of one sandbox, bodies that are taken whole; who sends many slowly would fill the memory that all share. */
const MOST_HELD_BYTES = 32 * 1024 * 1024
const tooMany: Refusal = {
  status: 429,
  reason: 'too-many-connections',
  message: `More than ${MOST_OPEN} requests are under way: wait for some of them.`,
}

/** Lets a request out, or refuses it. Never throws: whatever happens is answered, or breaks off the answer. */
export async function forward(way: Way, exchange: Exchange): Promise<void> {
  exchange.answer.on('error', ignore)
  const room = way.records.room()
  if (room) await room
  const startedAt = performance.now()
  const verdict = way.open < MOST_OPEN ? judge(way.rules(), exchange) : { refusal: tooMany }
  if ('refusal' in verdict) {
    const note = noteOf(way, exchange, startedAt)
    refuse(exchange, verdict.refusal)
    note({ decision: 'refused', reason: verdict.refusal.reason, status: verdict.refusal.status })
    return
  }
  send(way, exchange, verdict.admission, startedAt)
}

function send(way: Way, exchange: Exchange, admission: Admission, startedAt: number): void {
  const { host, name, credential } = admission
  const note = noteOf(way, exchange, startedAt)
  const isSearched = host.credential !== undefined && way.scrub
  const swaps = credential?.placeholders.none === false ? credential.placeholders : undefined
  const body =
    exchange.body && (swaps ? swapped(way, exchange.body, swaps, exchange.headers) : plainBody(exchange.body))
  const { open } = exchange.connection
  let hasBeenRepeated = false

  const ended = (rest: Partial<EgressRecord> & Pick<EgressRecord, 'decision'>) => {
    open.delete(breakOff)
    way.open--
    way.held -= body?.held ?? 0
    const credentialUsed = credential !== undefined && { credential: true }
    note({ ...rest, ...(body && { requestBytes: body.bytes() }), ...credentialUsed })
  }
  const fail = (failure: Failure, answered?: { status: number; bytes: number }) => {
    const refusal = refusalFor(failure)
    if (answered) exchange.abort()
    else refuse(exchange, refusal)
    const status = answered ? { status: answered.status, responseBytes: answered.bytes } : { status: refusal.status }
    ended({ decision: refusedFor.has(failure.reason) ? 'refused' : 'allowed', reason: failure.reason, ...status })
  }
  const answer = createAnswer({
    exchange,
    name,
    secrets: isSearched ? way.rules()?.secrets : undefined,
    again: () => {
      if (body || hasBeenRepeated || !repeatable.has(exchange.method)) return false
      hasBeenRepeated = true
      go(undefined)
      return true
    },
    ended: ({ status, bytes }) => ended({ decision: 'allowed', status, responseBytes: bytes }),
    failed: fail,
    ahead: way.open < MOST_AHEAD ? AHEAD_BYTES : 0,
    left: (answered) =>
      ended({ decision: 'allowed', ...(answered && { status: answered.status, responseBytes: answered.bytes }) }),
  })
  const breakOff = (reason?: EgressReason) =>
    reason ? answer.abort(new Failure(reason, 'The rules have changed, and no longer allow this.')) : answer.leave()
  open.add(breakOff)
  way.open++

  const options = {
    method: exchange.method,
    path: swaps ? swapText(swaps, admission.target, 'url') : admission.target,
    headers: sentHeaders(exchange.headers, {
      name,
      searched: host.credential !== undefined,
      credential,
      git: isGit(admission.path, admission.query),
      dropLength: swaps !== undefined && body !== undefined,
      dropEncoding: body?.unpacked === true,
    }),
  }
  const target = { name, tls: exchange.connection.tls, operator: host.operator }
  const go = (content: Dispatcher.DispatchOptions['body']) => {
    try {
      way.hosts.pool(target).dispatch({ ...options, body: content }, answer)
    } catch (cause) {
      answer.abort(new Failure('request-malformed', 'The request can not be sent on as it is.', { cause }))
    }
  }
  if (body?.body instanceof Promise) body.body.then(go, (error: Error) => answer.abort(error))
  else go(body?.body)
}

const plainBody = (from: NonNullable<Exchange['body']>): Swapping => {
  const body = new SentBody(from)
  return { body, bytes: () => body.bytes, unpacked: false, held: 0 }
}

function swapped(way: Way, ...[from, swaps, headers]: [Readable, Placeholders, string[]]): Swapping {
  const body = swappedBody(from, swaps, headers, MOST_HELD_BYTES - way.held)
  way.held += body.held
  return body
}

/** Asking twice changes nothing. */
const repeatable = new Set(['GET', 'HEAD', 'OPTIONS'])

/** What was decided here; other failures are the host's. */
export const refusedFor = new Set<EgressReason>(['address-not-public', 'upstream-certificate', 'request-malformed'])

const statuses: Partial<Record<EgressReason, number>> = {
  'address-not-public': 403,
  'request-malformed': 400,
  'rules-changed': 403,
}

export const refusalFor = ({ reason, message }: Failure): Refusal => ({
  status: statuses[reason] ?? 502,
  reason,
  message,
})

export function refuse(exchange: Exchange, { status, reason, message }: Refusal): void {
  const content = refusalContent(reason, message)
  const isUnread = exchange.body !== undefined && !exchange.body.readableEnded
  const headers: Record<string, string> = { 'content-type': 'application/json', 'content-length': `${content.length}` }
  // What is left of the request may be endless: nobody is going to read it.
  if (isUnread) headers.connection = 'close'
  try {
    exchange.begin(status, '', headers)
    exchange.answer.end(exchange.method === 'HEAD' ? undefined : content)
  } catch {
    // The client is gone, or was answered: there is nothing left to say it on.
    exchange.abort()
  }
}

export const refusalContent = (reason: EgressReason, message: string): Buffer =>
  Buffer.from(JSON.stringify({ error: { code: 'EGRESS_REFUSED', reason, message } }))

/** Makes the record of an exchange when it is over: of each refusal, of others if the sandbox is audited. */
export function noteOf({ rules, records }: Way, { connection, method, target, hosts }: Exchange, startedAt: number) {
  const at = new Date().toISOString()
  const { auditLog = false, secrets } = rules() ?? {}
  return (rest: Partial<EgressRecord> & Pick<EgressRecord, 'decision'>) => {
    if (!auditLog && rest.reason === undefined) return
    const clean = (text: string) => (secrets ? scrubText(secrets, text) : text)
    records.add({
      at,
      port: connection.port,
      host: clean(hosts[0] ?? connection.name ?? connection.address).slice(0, 300),
      method: clean(method).slice(0, 50),
      path: clean(target.split('?', 1)[0] as string).slice(0, 2000),
      durationMs: Math.round((performance.now() - startedAt) * 100) / 100,
      ...rest,
    })
  }
}

// Each failure is told where it counts; the event, left alone, would end the process.
const ignore = () => undefined
