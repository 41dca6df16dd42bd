import { once } from 'node:events'
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import { createSecureServer, type Http2SecureServer } from 'node:http2'
import type { AddressInfo, Socket } from 'node:net'
import type { SecureContext, TLSSocket } from 'node:tls'
import { type WebSocket, WebSocketServer } from 'ws'
import { type Certificate, contextOf } from './certificates.ts'

/** One request as it arrived. */
export interface Seen {
  secure: boolean
  /** The name in the TLS handshake */
  servername?: string
  method: string
  /** Target of the request line */
  target: string
  httpVersion: string
  headers: IncomingMessage['headers']
  /** Names as they came and values, alternating */
  rawHeaders: string[]
  /** Latin-1, as far as it has come */
  body: string
  /** The whole of it has come */
  complete: boolean
}

/** Answers a request; called when its body has come, or for `early` ones at once. */
export type Handler = (seen: Seen, response: ServerResponse, request: IncomingMessage) => unknown

/** A host of the internet, or many: over TLS by its certificates, and in the clear. Records whatever arrives. */
export interface Upstream {
  /** Of TLS, with HTTP/1.1 and HTTP/2 */
  port: number
  plainPort: number
  requests: Seen[]
  /** TCP connections to either port so far */
  connections: number
  /** TCP connections that are open */
  open: Set<Socket>
  /** From now on shown to whoever names this host; one for '' serves all others */
  certify(name: string, certificate: Certificate): void
  /** Answers this path, without its query, from now on */
  answer(path: string, handler: Handler, options?: { early?: boolean }): void
  /** Takes WebSockets on this path; otherwise they are echoed */
  webSocket(path: string, handler: (socket: WebSocket, request: IncomingMessage) => void): void
  /** Refuses WebSockets on this path with 403 and this text */
  decline(path: string, text: (seen: Seen) => string): void
  /** Forgets requests that were recorded */
  forget(): void
  close(): Promise<void>
}

type Listening = Server | Http2SecureServer

/** @param address of loopback to listen on */
export async function openUpstream({ address = '127.0.0.1', port = 0 } = {}): Promise<Upstream> {
  const contexts = new Map<string, SecureContext>()
  const secure = createSecureServer({
    allowHTTP1: true,
    SNICallback: (name, done) => done(null, contexts.get(name.toLowerCase()) ?? contexts.get('')),
  })
  const plain = createServer()
  const handlers = new Map<string, { handler: Handler; early: boolean }>()
  const webSockets = new Map<string, (socket: WebSocket, request: IncomingMessage) => void>()
  const declined = new Map<string, (seen: Seen) => string>()
  const upstream: Upstream = {
    port: 0,
    plainPort: 0,
    requests: [],
    connections: 0,
    open: new Set(),
    certify: (name, certificate) => contexts.set(name, contextOf(certificate)),
    answer: (path, handler, { early = false } = {}) => handlers.set(path, { handler, early }),
    webSocket: (path, handler) => webSockets.set(path, handler),
    decline: (path, text) => declined.set(path, text),
    forget: () => upstream.requests.splice(0),
    async close() {
      for (const server of [secure, plain]) server.close()
      for (const socket of upstream.open) socket.destroy()
    },
  }
  for (const server of [secure, plain] as Listening[]) {
    countConnections(server, upstream)
    server.on('request', (request: IncomingMessage, response: ServerResponse) => {
      const seen = see(request)
      upstream.requests.push(seen)
      const { handler, early } = handlers.get(pathOf(seen)) ?? { handler: hello, early: false }
      const run = () => handler(seen, response, request)
      request.on('error', () => response.destroy())
      if (early) return run()
      request.on('data', (chunk: Buffer) => {
        seen.body += chunk.toString('latin1')
      })
      request.on('end', () => {
        seen.complete = true
        run()
      })
    })
    acceptWebSockets(server, upstream, webSockets, declined)
  }
  await Promise.all([once(secure.listen(port, address), 'listening'), once(plain.listen(0, address), 'listening')])
  upstream.port = (secure.address() as AddressInfo).port
  upstream.plainPort = (plain.address() as AddressInfo).port
  return upstream
}

const pathOf = ({ target }: Seen) => target.split('?')[0] ?? target

const hello: Handler = (seen, response) => {
  response.setHeader('content-type', 'text/plain')
  response.end(`hello from ${seen.headers[':authority'] ?? seen.headers.host}`)
}

function see(request: IncomingMessage): Seen {
  const socket = request.socket as TLSSocket
  const { method = '', url = '', httpVersion, headers, rawHeaders } = request
  const servername = typeof socket.servername === 'string' ? socket.servername : undefined
  const secure = Boolean(socket.encrypted)
  return { secure, servername, method, target: url, httpVersion, headers, rawHeaders, body: '', complete: false }
}

function countConnections(server: Listening, upstream: Upstream) {
  server.on('connection', (socket: Socket) => {
    upstream.connections += 1
    upstream.open.add(socket)
    socket.on('error', () => socket.destroy())
    socket.once('close', () => upstream.open.delete(socket))
  })
  // A client that refuses our certificate breaks off: that is what some tests want.
  server.on('tlsClientError', () => undefined)
}

function acceptWebSockets(
  server: Listening,
  upstream: Upstream,
  handlers: Map<string, (socket: WebSocket, request: IncomingMessage) => void>,
  declined: Map<string, (seen: Seen) => string>,
) {
  // It takes an extension when one is offered: the proxy must not let that happen where it searches for secrets.
  const webSocketServer = new WebSocketServer({ noServer: true, perMessageDeflate: { threshold: 0 } })
  server.on('upgrade', (request: IncomingMessage, socket: Socket, head: Buffer) => {
    const seen = see(request)
    upstream.requests.push(seen)
    const text = declined.get(pathOf(seen))?.(seen)
    if (text !== undefined) {
      return socket.end(`HTTP/1.1 403 Forbidden\r\nContent-Length: ${text.length}\r\n\r\n${text}`)
    }
    webSocketServer.handleUpgrade(request, socket, head, (webSocket) => {
      const handler = handlers.get(pathOf(seen))
      if (handler) return handler(webSocket, request)
      webSocket.on('message', (data, isBinary) => webSocket.send(data, { binary: isBinary }))
    })
  })
}
