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
export function createAnswer({ exchange, name, secrets, ended, failed, left }: Answering): Answer {
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
      let reason = text
      if (secrets) {
        reason = scrubText(secrets, text)
        if (hasBody) {
          decompress = unpack(headers['content-encoding'], name)
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
    onResponseError: (_controller, error) => fail(error),
  }
}

function asFailure(error: Error, name: string): Failure {
  if (error instanceof Failure) return error
  const code = 'code' in error ? String(error.code) : error.name
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

function unpack(encoding: string | string[] | undefined, name: string): Transform[] {
  if (encoding === undefined) return []
  const stages = decompressorsFor(String(encoding))
  if (stages) return stages
  const message = `${name} answered in an encoding that can not be searched for secrets: ${String(encoding).slice(0, 100)}.`
  throw new Failure('encoding-unknown', message)
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
