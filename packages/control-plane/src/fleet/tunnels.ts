import { once } from 'node:events'
import type { IncomingMessage } from 'node:http'
import http2 from 'node:http2'
import { type Duplex, Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { keepTunnelAlive, tunnelMemoryMB, tunnelProtocol, tunnelSettings, tunnelWindowBytes } from '@paws/api'
import type { Logger } from 'pino'
import { ApiError } from '../errors.ts'

export interface TunnelRequest {
  method: 'GET' | 'PUT' | 'POST'
  /** With its query */
  path: string
  headers?: Record<string, string | number>
  /** With it, the request ends after that; without it, the caller writes to `stream` and ends it */
  body?: Uint8Array | string | Readable
  /** Ends the request, at whatever point it is */
  signal?: AbortSignal
  /** How long to wait for the head of the answer once the body is sent; 15 s unless set */
  timeoutMs?: number
}

export interface TunnelResponse {
  status: number
  headers: http2.IncomingHttpHeaders
  /** The answer's bytes, and where a request without `body` is written. Must be read or destroyed */
  stream: http2.ClientHttp2Stream
}

/** The connections that workers dialled. Each is one HTTP/2 connection in which the worker is the server. */
export interface Tunnels {
  /** Answers the upgrade of an authenticated worker's request and takes over its socket. */
  accept(workerId: string, request: IncomingMessage, socket: Duplex, head: Buffer): void
  connected(workerId: string): boolean
  /**
   * Asks a worker. A worker that is dialling again is waited for, a moment long.
   *
   * @throws ApiError WORKER_UNREACHABLE when there is no tunnel, or it breaks before the answer begins; what makes a
   * stream as `body` fail
   */
  request(workerId: string, request: TunnelRequest): Promise<TunnelResponse>
  close(): Promise<void>
}

export interface TunnelsOptions {
  log: Logger
  /** How often a tunnel is tried, and how long its answer may take; 10 s */
  pingMs?: number
  /** How long a request waits for a worker without a tunnel; 3 s */
  graceMs?: number
}

export function openTunnels({ log, pingMs = 10_000, graceMs = 3_000 }: TunnelsOptions): Tunnels {
  // A worker that dials again before its old connection is known to be dead has two: the newest counts.
  const tunnels = new Map<string, http2.ClientHttp2Session>()
  const all = new Map<http2.ClientHttp2Session, Duplex>()
  const waiting = new Map<string, Set<() => void>>()

  function serve(workerId: string, socket: Duplex) {
    const session = http2.connect('http://worker', {
      createConnection: () => socket,
      settings: tunnelSettings,
      maxSessionMemory: tunnelMemoryMB,
    })
    const drop = () => {
      all.delete(session)
      if (tunnels.get(workerId) === session) tunnels.delete(workerId)
    }
    session.on('connect', () => session.setLocalWindowSize(tunnelWindowBytes))
    session.on('error', (error) => log.info({ workerId, err: error }, 'A tunnel broke'))
    session.on('goaway', drop)
    session.on('close', drop)
    keepTunnelAlive(session, socket, pingMs, () =>
      log.warn({ workerId }, 'A worker does not answer in its tunnel: closing it'),
    )
    all.set(session, socket)
    tunnels.set(workerId, session)
    for (const wake of waiting.get(workerId) ?? []) wake()
    log.debug({ workerId }, 'A worker opened its tunnel')
  }

  async function find(workerId: string, signal?: AbortSignal): Promise<http2.ClientHttp2Session> {
    if (!tunnels.has(workerId)) await appearance(waiting, workerId, graceMs, signal)
    const session = tunnels.get(workerId)
    if (session && !session.closed && !session.destroyed) return session
    throw new ApiError('WORKER_UNREACHABLE', 'The worker of this session is out of contact. Try again in a moment.')
  }

  return {
    accept(workerId, _request, socket, head) {
      if (head.length > 0) socket.unshift(head)
      socket.on('error', (error) => log.info({ workerId, err: error }, "A tunnel's socket failed"))
      if ('setNoDelay' in socket && typeof socket.setNoDelay === 'function') socket.setNoDelay(true)
      const answer = `HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: ${tunnelProtocol}\r\n\r\n`
      // Not before it is written: over TLS, Node aborts the whole process if HTTP/2 takes the socket earlier.
      socket.write(answer, (error) => {
        if (!error && !socket.destroyed) serve(workerId, socket)
      })
    },
    connected: (workerId) => tunnels.has(workerId),
    async request(workerId, options) {
      return ask(await find(workerId, options.signal), options)
    },
    async close() {
      await Promise.all([...all].map(([session, socket]) => end(session, socket)))
    },
  }
}

async function ask(session: http2.ClientHttp2Session, options: TunnelRequest): Promise<TunnelResponse> {
  const { method, path, headers, body, signal, timeoutMs = 15_000 } = options
  signal?.throwIfAborted()
  const stream = session.request({ ':method': method, ':path': path, ...headers }, { endStream: method === 'GET' })
  // Whoever reads the stream hears of an error; after that nobody may be left, and it must not end the process.
  stream.on('error', () => undefined)
  const abort = () => stream.close(http2.constants.NGHTTP2_CANCEL)
  signal?.addEventListener('abort', abort, { once: true })
  stream.once('close', () => signal?.removeEventListener('abort', abort))
  let timer: NodeJS.Timeout | undefined
  let broken: unknown
  const sent = () => {
    timer = setTimeout(abort, timeoutMs)
  }
  try {
    if (body instanceof Readable) {
      pipeline(body, stream).then(sent, (error: unknown) => {
        broken = error
        abort()
      })
    } else {
      if (body !== undefined) stream.end(body)
      sent()
    }
    const [head] = (await Promise.race([
      once(stream, 'response'),
      once(stream, 'close').then(() => Promise.reject(new Error('The stream ended before an answer'))),
    ])) as [http2.IncomingHttpHeaders & { ':status': number }]
    return { status: head[':status'], headers: head, stream }
  } catch (error) {
    abort()
    signal?.throwIfAborted()
    if (broken instanceof ApiError) throw broken
    throw new ApiError('WORKER_UNREACHABLE', 'The worker of this session went out of contact. Try again in a moment.', {
      cause: broken ?? error,
    })
  } finally {
    clearTimeout(timer)
  }
}

/** Resolves when the worker has a tunnel, or after `graceMs`. */
async function appearance(
  waiting: Map<string, Set<() => void>>,
  workerId: string,
  graceMs: number,
  signal?: AbortSignal,
) {
  const { promise, resolve } = Promise.withResolvers<void>()
  const those = waiting.get(workerId) ?? new Set()
  waiting.set(workerId, those.add(resolve))
  const timer = setTimeout(resolve, graceMs)
  signal?.addEventListener('abort', () => resolve(), { once: true })
  await promise
  clearTimeout(timer)
  those.delete(resolve)
  if (those.size === 0) waiting.delete(workerId)
  signal?.throwIfAborted()
}

/** Lets what runs in a tunnel end for a moment, then cuts it. */
async function end(session: http2.ClientHttp2Session, socket: Duplex): Promise<void> {
  if (socket.destroyed) return
  const closed = once(socket, 'close')
  session.close()
  // A session that is closing would wait for the peer to end the socket, however long.
  const timer = setTimeout(() => socket.destroy(), 500)
  await closed
  clearTimeout(timer)
}
