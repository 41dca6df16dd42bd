import type { Transform } from 'node:stream'
import { type Dispatcher, errors } from 'undici'
import { decompressorsFor } from './body.ts'
import type { Exchange } from './exchange.ts'
import { Failure } from './failure.ts'
import { openScrub, type Scrub, type Secrets, scrubText } from './scrub/index.ts'

export interface Answering {
  exchange: Exchange
  name: string
  /** What to search the answer for; without them it passes as it is */
  secrets: Secrets | undefined
  ended(answered: { status: number; bytes: number }): void
  /** Before anything was answered, or in the midst of it */
  failed(failure: Failure, answered: { status: number; bytes: number } | undefined): void
  /** Sends it once more, if that can do no harm */
  again(): boolean
  /** The client gave up */
  left(answered: { status: number; bytes: number } | undefined): void
}

export interface Answer extends Dispatcher.DispatchHandler {
  abort(reason: Error): void
  /** As when the client gives up */
  leave(): void
}

/** Between two neighbours only. Alt-Svc would send the client where nothing leads. */
const hopByHop = new Set(
  'connection keep-alive proxy-connection te trailer transfer-encoding upgrade alt-svc'.split(' '),
)

type Headers = Record<string, string | string[]>

/** Hands the host's answer on as it comes, in both directions no faster than the slower side. */
export function createAnswer({ exchange, name, secrets, again, ended, failed, left }: Answering): Answer {
  const { answer, method } = exchange
  let controller: Dispatcher.DispatchController | undefined
  let answered: { status: number; bytes: number } | undefined
  let scrub: Scrub | undefined
  let decompress: Transform[] = []
  let isOver = false

  const write = (bytes: Buffer) => {
    if (bytes.length > 0 && !answer.write(bytes)) (decompress.at(-1) ?? controller)?.pause()
  }
  const finish = () => {
    if (isOver) return
    isOver = true
    const rest = scrub?.end()
    if (rest && rest.length > 0) answer.write(rest)
    answer.end()
    ended(answered as { status: number; bytes: number })
  }
  const fail = (error: Error) => {
    if (isOver) return
    isOver = true
    scrub?.end()
    for (const stage of decompress) stage.destroy()
    failed(asFailure(error, name), answered)
  }
  answer.on('drain', () => (decompress.at(-1) ?? controller)?.resume())
  const leave = () => {
    if (isOver) return
    isOver = true
    scrub?.end()
    for (const stage of decompress) stage.destroy()
    controller?.abort(new errors.RequestAbortedError())
    left(answered)
  }
  answer.once('close', leave)

  return {
    abort: (reason) => {
      fail(reason)
      controller?.abort(reason)
    },
    leave,
    onRequestStart: (started) => {
      controller = started
      if (isOver) started.abort(new errors.RequestAbortedError())
    },
    onResponseStart: (_controller, status, headers, text = '') => {
      // What comes before an answer is for the neighbour: the client has got its own "100 Continue".
      if (status < 200) return
      const hasBody = method !== 'HEAD' && status !== 204 && status !== 304
      const own = passedHeaders(headers as Headers, secrets)
      if (secrets) dropTelling(own, controller?.rawHeaders, secrets)
      let reason = text
      if (secrets) {
        reason = scrubText(secrets, text)
        if (hasBody) {
          decompress = unpack(headers['content-encoding'], name)
          refuseCoded(headers['transfer-encoding'], name)
          if (decompress.length > 0) delete own['content-encoding']
          delete own['content-length']
          scrub = openScrub(secrets, String(headers['content-type'] ?? ''), write)
          flow(
            decompress,
            controller,
            (bytes) => write((scrub as Scrub).push(bytes)),
            finish,
            (error) => {
              fail(error)
              controller?.abort(error)
            },
          )
        }
      }
      exchange.begin(status, reason, own)
      answered = { status, bytes: 0 }
    },
    onResponseData: (_controller, chunk) => {
      if (!answered || isOver) return
      answered.bytes += chunk.length
      const first = decompress[0]
      if (first) {
        if (!first.write(chunk)) controller?.pause()
      } else write(scrub ? scrub.push(chunk) : chunk)
    },
    onResponseEnd: () => {
      if (decompress[0]) decompress[0].end()
      else finish()
    },
    onResponseError: (_controller, error) => {
      if (!answered && !isOver && isStale(error) && again()) return
      fail(error)
    },
  }
}

const codeOf = (error: Error) => ('code' in error ? String(error.code) : error.name)

/** A connection that was kept for more ended just as it was used again. */
const isStale = (error: Error) => ['UND_ERR_SOCKET', 'ECONNRESET', 'EPIPE'].includes(codeOf(error))

function asFailure(error: Error, name: string): Failure {
  if (error instanceof Failure) return error
  if (error instanceof errors.InvalidArgumentError || error instanceof errors.NotSupportedError) {
    return new Failure('request-malformed', 'The request can not be sent on as it is.', { cause: error })
  }
  const code = codeOf(error)
  return new Failure('upstream-unreachable', `${name} broke off: ${code}.`, { cause: error })
}

function passedHeaders(headers: Headers, secrets: Secrets | undefined): Headers {
  const own: Headers = {}
  const named = String(headers.connection ?? '').toLowerCase()
  const options = named === '' || named === 'keep-alive' || named === 'close' ? undefined : named.split(/[\s,]+/)
  for (const name in headers) {
    if (hopByHop.has(name) || options?.includes(name)) continue
    const value = headers[name] as string | string[]
    if (!secrets) own[name] = value
    else
      own[scrubText(secrets, name)] = Array.isArray(value)
        ? value.map((one) => scrubText(secrets, one))
        : scrubText(secrets, value)
  }
  return own
}

/** A name is passed on in lower case, in which a secret would not be found. */
function dropTelling(own: Headers, raw: Dispatcher.DispatchController['rawHeaders'], secrets: Secrets): void {
  if (!Array.isArray(raw)) return
  for (let at = 0; at < raw.length; at += 2) {
    const name = raw[at]?.toString('latin1') ?? ''
    if (scrubText(secrets, name) !== name) delete own[name.toLowerCase()]
  }
}

function unpack(encoding: string | string[] | undefined, name: string): Transform[] {
  if (encoding === undefined) return []
  return decompressorsFor(String(encoding)) ?? refuseEncoding(encoding, name)
}

/** Only chunks are taken apart on the way; what is compressed for the way as well has not been asked for. */
function refuseCoded(coding: string | string[] | undefined, name: string): void {
  if (coding !== undefined && String(coding).trim().toLowerCase() !== 'chunked') refuseEncoding(coding, name)
}

function refuseEncoding(encoding: string | string[], name: string): never {
  const what = String(encoding).slice(0, 100)
  throw new Failure(
    'encoding-unknown',
    `${name} answered in an encoding that can not be searched for secrets: ${what}.`,
  )
}

/** Chains them, so that none is given more than the next one takes. */
function flow(
  stages: Transform[],
  source: Dispatcher.DispatchController | undefined,
  take: (bytes: Buffer) => void,
  end: () => void,
  fail: (error: Error) => void,
): void {
  stages.forEach((stage, at) => {
    const next = stages[at + 1]
    stage.on('error', fail)
    if (at === 0) stage.on('drain', () => source?.resume())
    if (next) stage.pipe(next)
    else stage.on('data', take).once('end', end)
  })
}
