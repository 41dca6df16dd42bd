import { createServer, type IncomingMessage, type Server } from 'node:http'
import { type IncomingHttpHeaders, performServerHandshake, type ServerHttp2Stream } from 'node:http2'
import type { Duplex } from 'node:stream'
import type { EgressReason } from '@paws/api'
import { type Connection, type Exchange, http1Exchange, http2Exchange, upgradeExchange } from './exchange.ts'
import { refusalContent } from './forward.ts'

const IDLE_MS = 65_000
const HEADERS_MS = 30_000
const MOST_HEADER_BYTES = 64 * 1024

/** What becomes of what is read from a connection. */
export interface Serving {
  connection: Connection
  request(exchange: Exchange): void
  webSocket(exchange: Exchange, request: IncomingMessage, head: Buffer): void
  /** Something that got no further, and was answered already */
  refused(reason: EgressReason, rest: { method?: string; host?: string; status: number }): void
}

/** Reads HTTP from connections that came elsewhere. One for all sandboxes: each connection knows whose it is. */
export interface Servers {
  serve(serving: Serving): void
  close(): void
}

export function createServers(): Servers {
  const servings = new WeakMap<Duplex, Serving>()
  const server = createServer({
    maxHeaderSize: MOST_HEADER_BYTES,
    headersTimeout: HEADERS_MS,
    keepAliveTimeout: IDLE_MS,
    // Uploads take as long as they take.
    requestTimeout: 0,
    // Missing ones are refused, and recorded, with the malformed.
    requireHostHeader: false,
    insecureHTTPParser: false,
  })
  // Beyond a number headers would be dropped without a word; their size is bounded anyway.
  server.maxHeadersCount = 0
  answerRequests(server, servings)
  // Starts the clock for slow headers, which Node starts with a listening server.
  server.emit('listening')
  return {
    serve: (serving) => {
      const { socket } = serving.connection
      if ('alpnProtocol' in socket && socket.alpnProtocol === 'h2') return serveHttp2(serving)
      servings.set(socket, serving)
      server.emit('connection', socket)
    },
    close: () => void server.close(),
  }
}

function answerRequests(server: Server, servings: WeakMap<Duplex, Serving>): void {
  const unanswered = new WeakMap<Duplex, number>()
  const count = (socket: Duplex, change: number) => unanswered.set(socket, (unanswered.get(socket) ?? 0) + change)
  const isBehindAnother = (socket: Duplex) => (unanswered.get(socket) ?? 0) > 0
  server.on('request', (request, response) => {
    const { socket } = request
    count(socket, 1)
    response.once('close', () => count(socket, -1))
    const serving = servings.get(socket)
    serving?.request(http1Exchange(serving.connection, request, response))
  })
  server.on('upgrade', (request: IncomingMessage, socket: Duplex, head: Buffer) => {
    const serving = servings.get(socket)
    if (!serving) return void socket.destroy()
    // The place for an answer is still another's. No client asks for this before it has heard all it asked for.
    if (isBehindAnother(socket)) {
      socket.destroy()
      return serving.refused('upgrade-refused', { method: request.method ?? '', status: 400 })
    }
    serving.webSocket(upgradeExchange(serving.connection, request), request, head)
  })
  server.on('connect', (request: IncomingMessage, socket: Duplex) => {
    if (isBehindAnother(socket)) socket.destroy()
    else say(socket, 405, 'method-refused', 'CONNECT is not forwarded: dial the host itself.')
    servings.get(socket)?.refused('method-refused', { method: 'CONNECT', host: request.url ?? '', status: 405 })
  })
  server.on('clientError', (error: NodeJS.ErrnoException, socket: Duplex) => {
    const serving = servings.get(socket)
    if (!serving || error.code === 'ECONNRESET' || !socket.writable) return void socket.destroy()
    const status = statusFor(error.code)
    // In the midst of another answer a client would take this for a part of it.
    if (serving.connection.open.size > 0) socket.destroy()
    else say(socket, status, 'request-malformed', 'This is not well-formed HTTP.')
    serving.refused('request-malformed', { status })
  })
}

function statusFor(code: string | undefined): number {
  if (code === 'HPE_HEADER_OVERFLOW') return 431
  return code === 'ERR_HTTP_REQUEST_TIMEOUT' ? 408 : 400
}

function say(socket: Duplex, status: number, reason: EgressReason, message: string): void {
  const content = refusalContent(reason, message)
  const head = `HTTP/1.1 ${status} Refused\r\nconnection: close\r\ncontent-type: application/json\r\n`
  socket.end(Buffer.concat([Buffer.from(`${head}content-length: ${content.length}\r\n\r\n`), content]))
  socket.on('error', () => socket.destroy())
  // What still comes is let pass by: unread, it would make the kernel throw the answer away with the connection.
  socket.resume()
  setTimeout(() => socket.destroy(), 1000).unref()
}

function serveHttp2(serving: Serving): void {
  const { connection } = serving
  const session = performServerHandshake(connection.socket, {
    settings: { maxConcurrentStreams: 100, maxHeaderListSize: MOST_HEADER_BYTES, enablePush: false },
    maxHeaderListPairs: 256,
    maxSessionInvalidFrames: 50,
    maxSessionRejectedStreams: 50,
    streamResetBurst: 200,
    streamResetRate: 20,
    maxSessionMemory: 8,
  })
  let streams = 0
  session.on('error', () => session.destroy())
  session.on('frameError', () => session.destroy())
  session.setTimeout(IDLE_MS, () => {
    if (streams === 0) session.close()
  })
  session.on('stream', (stream: ServerHttp2Stream, headers: IncomingHttpHeaders, _flags: number, raw: string[]) => {
    streams++
    stream.on('error', () => stream.close())
    stream.once('close', () => streams--)
    serving.request(http2Exchange(connection, stream, headers, raw))
  })
}
