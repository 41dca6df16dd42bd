import type { IncomingMessage } from 'node:http'
import { type Readable, Transform } from 'node:stream'
import { ApiError } from '../errors.ts'

/** Longest JSON body unless its endpoint says otherwise: 1 MiB. */
export const defaultLimitBytes = 1024 * 1024
/** Deepest nesting of a JSON body: what walks it may recurse. */
const deepest = 64
/** A JSON body must have come by then. */
const patienceMs = 60_000
/** A stream of bytes may take hours, but not stand still for this long, slow sandboxes behind it included. */
const standstillMs = 300_000
/** A body that is refused is still taken off the wire this far, so that the client reads the answer. */
const discard = { bytes: 32 * 1024 * 1024, ms: 5000 }

/** Says that the client went away; there is nobody to answer. */
export class ClientGone extends Error {
  override name = 'ClientGone'
}

/**
 * Reads a JSON body.
 *
 * @throws VALIDATION_ERROR when it is missing, no JSON or nested too deeply; UNSUPPORTED_MEDIA_TYPE; PAYLOAD_TOO_LARGE,
 * at once when its length says so, else as soon as it passes the limit
 */
export async function readJson(request: IncomingMessage, limitBytes: number): Promise<{ raw: Buffer; value: unknown }> {
  const { headers } = request
  if (headers['transfer-encoding'] === undefined && Number(headers['content-length'] ?? 0) === 0) throw missing()
  const type = (headers['content-type'] ?? '').split(';')[0]?.trim().toLowerCase()
  if (type !== 'application/json') {
    throw new ApiError('UNSUPPORTED_MEDIA_TYPE', 'The body must be JSON: send "Content-Type: application/json"')
  }
  if ((headers['content-encoding'] ?? 'identity') !== 'identity') {
    throw new ApiError('UNSUPPORTED_MEDIA_TYPE', 'The body must not be compressed: send no "Content-Encoding"')
  }
  const raw = await readAll(request, limitBytes)
  if (raw.length === 0) throw missing()
  const value = parse(raw)
  if (isDeeperThan(value, deepest)) throw invalid(`The body is nested deeper than ${deepest} levels`)
  return { raw, value }
}

/** The body as a stream that fails with PAYLOAD_TOO_LARGE once it passes the limit. */
export function limitedStream(request: IncomingMessage, limitBytes: number): Readable {
  if (Number(request.headers['content-length'] ?? 0) > limitBytes) throw tooLarge(request, limitBytes)
  let total = 0
  const timer = setTimeout(() => request.destroy(new Error('The body stood still for too long')), standstillMs)
  const limited = new Transform({
    transform(chunk: Buffer, _encoding, done) {
      timer.refresh()
      total += chunk.length
      if (total > limitBytes) done(tooLarge(request, limitBytes))
      else done(null, chunk)
    },
  })
  request.on('error', (error) => limited.destroy(new ClientGone('The client went away', { cause: error })))
  request.on('close', () => {
    clearTimeout(timer)
    if (!request.complete) limited.destroy(new ClientGone('The client went away'))
  })
  // A handler that refuses without reading leaves the rest: it is discarded, so that the answer can be read.
  limited.on('close', () => {
    clearTimeout(timer)
    discardRest(request)
  })
  return request.pipe(limited)
}

function readAll(request: IncomingMessage, limitBytes: number): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    if (Number(request.headers['content-length'] ?? 0) > limitBytes) return reject(tooLarge(request, limitBytes))
    const chunks: Buffer[] = []
    let total = 0
    const timer = setTimeout(() => request.destroy(new Error('The body did not come in time')), patienceMs)
    const settle = () => {
      clearTimeout(timer)
      request.off('data', onData).off('end', onEnd).off('close', onClose)
    }
    const onData = (chunk: Buffer) => {
      total += chunk.length
      chunks.push(chunk)
      if (total <= limitBytes) return
      settle()
      reject(tooLarge(request, limitBytes))
    }
    const onEnd = () => {
      settle()
      resolve(chunks.length === 1 && chunks[0] ? chunks[0] : Buffer.concat(chunks, total))
    }
    const onClose = () => {
      settle()
      reject(new ClientGone('The client went away'))
    }
    // An error of the request is always followed by its close.
    request.on('error', () => undefined)
    request.on('data', onData).on('end', onEnd).on('close', onClose)
  })
}

function tooLarge(request: IncomingMessage, limitBytes: number): ApiError {
  discardRest(request)
  return new ApiError('PAYLOAD_TOO_LARGE', `The body is longer than ${limitBytes} bytes, the most that is taken here`)
}

/** Takes what an answered request still sends, for a while; then closes the connection. */
export function discardRest(request: IncomingMessage): void {
  if (request.readableEnded || request.destroyed) return
  let total = 0
  const giveUp = () => request.socket.destroySoon()
  const timer = setTimeout(giveUp, discard.ms)
  timer.unref()
  request.on('data', (chunk: Buffer) => {
    total += chunk.length
    if (total > discard.bytes) giveUp()
  })
  request.once('close', () => clearTimeout(timer))
  request.once('end', () => clearTimeout(timer))
  request.resume()
}

const utf8 = new TextDecoder('utf-8', { fatal: true })

function parse(raw: Buffer): unknown {
  try {
    return JSON.parse(utf8.decode(raw))
  } catch (error) {
    throw invalid(`The body is not JSON: ${(error as Error).message}`)
  }
}

function isDeeperThan(value: unknown, most: number): boolean {
  let level = [value].filter(isContainer)
  for (let depth = 0; level.length > 0; depth++) {
    if (depth >= most) return true
    level = level.flatMap((container) => Object.values(container).filter(isContainer))
  }
  return false
}

const isContainer = (value: unknown): value is object => typeof value === 'object' && value !== null

const missing = () => invalid('The body is missing: send JSON')

function invalid(message: string): ApiError {
  return new ApiError('VALIDATION_ERROR', message, { details: [{ path: 'body', message }] })
}
