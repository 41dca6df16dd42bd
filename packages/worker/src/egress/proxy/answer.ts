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
  /** So many bytes may wait for the client before the host is held back; each time that costs its connection much */
  ahead?: number
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

/** Up to here an answer that came in one piece goes on with its length, in one piece. */
const MOST_WHOLE_BYTES = 65_536

/** Hands the host's answer on as it comes, in both directions no faster than the slower side. */
export function createAnswer({ exchange, name, secrets, again, ended, failed, left, ahead = 0 }: Answering): Answer {
  const { answer } = exchange
  let controller: Dispatcher.DispatchController | undefined
  let head: Head | undefined
  let answered: { status: number; bytes: number } | undefined
  let isOver = false

  /** @returns whether it was not over yet */
  const settle = () => {
    if (isOver) return false
    isOver = true
    head?.scrub?.end()
    for (const stage of head?.decompress ?? []) stage.destroy()
    return true
  }
  const fail = (error: Error) => {
    if (settle()) failed(asFailure(error, name), answered)
  }
  const abort = (reason: Error) => {
    fail(reason)
    controller?.abort(reason)
  }
  const leave = () => {
    if (!settle()) return
    controller?.abort(new errors.RequestAbortedError())
    left(answered)
  }
  const begin = ({ status, text, headers }: Head) => {
    exchange.begin(status, text, headers)
    answered = { status, bytes: 0 }
  }
  const write = (bytes: Buffer) => {
    if (bytes.length > 0 && !answer.write(bytes) && answer.writableLength > ahead)
      (head?.decompress.at(-1) ?? controller)?.pause()
  }
  const finish = () => {
    if (isOver || !head) return
    isOver = true
    if (!answered) begin(head)
    if (head.scrub) write(head.scrub.end())
    answer.end()
    ended(answered as unknown as { status: number; bytes: number })
  }
  answer.on('drain', () => (head?.decompress.at(-1) ?? controller)?.resume())
  answer.once('close', leave)

  return {
    abort,
    leave,
    onRequestStart: (started) => {
      controller = started
      if (isOver) started.abort(new errors.RequestAbortedError())
    },
    onResponseStart: (_controller, status, headers, text = '') => {
      // What comes before an answer is for the neighbour: the client has got its own "100 Continue".
      if (status < 200) return
      const hasBody = exchange.method !== 'HEAD' && status !== 204 && status !== 304
      const given = { status, text, headers: headers as Headers, rawHeaders: controller?.rawHeaders, hasBody, name }
      const made = secrets ? searchedHead(given, secrets, write) : passedHead(given)
      head = made
      flow(made.decompress, controller, (bytes) => write(made.scrub ? made.scrub.push(bytes) : bytes), finish, abort)
      if (made.whole === undefined) return begin(made)
      // Most small answers come in one piece, and go on in one; for those that don't the beginning does not wait.
      process.nextTick(() => {
        if (answered || isOver) return
        try {
          begin(made)
        } catch (error) {
          abort(error as Error)
        }
      })
    },
    onResponseData: (_controller, chunk) => {
      if (!head || isOver) return
      if (!answered) {
        if (head.whole === chunk.length && head.scrub) return sendWhole(head, head.scrub, chunk)
        begin(head)
      }
      if (answered) answered.bytes += chunk.length
      const [first] = head.decompress
      if (!first) write(head.scrub ? head.scrub.push(chunk) : chunk)
      else if (!first.write(chunk)) controller?.pause()
    },
    onResponseEnd: () => {
      if (head?.decompress[0]) head.decompress[0].end()
      else finish()
    },
    onResponseError: (_controller, error) => {
      if (!head && !isOver && isStale(error) && again()) return
      fail(error)
    },
  }

  function sendWhole(whole: Head, scrub: Scrub, chunk: Buffer): void {
    const bytes = Buffer.concat([scrub.push(chunk), scrub.end()])
    whole.headers['content-length'] = String(bytes.length)
    whole.scrub = undefined
    begin(whole)
    if (answered) answered.bytes = chunk.length
    write(bytes)
  }
}

/** How an answer begins, and what its body goes through. */
interface Head {
  status: number
  text: string
  headers: Headers
  decompress: Transform[]
  scrub?: Scrub | undefined
  /** Length of a body that may come in one piece */
  whole?: number | undefined
}

interface GivenHead {
  status: number
  text: string
  headers: Headers
  rawHeaders: Dispatcher.DispatchController['rawHeaders']
  hasBody: boolean
  name: string
}

const passedHead = ({ status, text, headers }: GivenHead): Head => ({
  status,
  text,
  headers: passedHeaders(headers, undefined),
  decompress: [],
})

function searchedHead(given: GivenHead, secrets: Secrets, write: (bytes: Buffer) => void): Head {
  const { status, headers, hasBody, name } = given
  const own = passedHeaders(headers, secrets)
  dropTelling(own, given.rawHeaders, secrets)
  const head: Head = { status, text: scrubText(secrets, given.text), headers: own, decompress: [] }
  if (!hasBody) return head
  head.decompress = unpack(headers['content-encoding'], name)
  refuseCoded(headers['transfer-encoding'], name)
  if (head.decompress.length > 0) delete own['content-encoding']
  delete own['content-length']
  head.scrub = openScrub(secrets, String(headers['content-type'] ?? ''), write)
  const length = Number(headers['content-length'] ?? Number.NaN)
  if (length > 0 && length <= MOST_WHOLE_BYTES && head.decompress.length === 0) head.whole = length
  return head
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
  const own: Headers = Object.create(null)
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
