import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import type { Duplex } from 'node:stream'
import { setTimeout as sleep } from 'node:timers/promises'
import { getRequestListener } from '@hono/node-server'
import type { Logger } from 'pino'
import { ApiError } from '../errors.ts'
import { asError, makeRequestId } from './errors.ts'
import type { App } from './mount.ts'
import { responseForUpgrade } from './upgrade.ts'

export interface ServerOptions {
  app: App
  host: string
  /** 0 takes a free one */
  port: number
  log: Logger
  /** Makes everything that waits end; see MountOptions.stopping */
  stop: () => void
  /** How long requests in flight may take once it is closing; 10 s unless set */
  drainMs?: number
}

export interface HttpServer {
  port: number
  /** Takes nothing new, lets what is in flight finish, ends streams and upgraded connections */
  close(): Promise<void>
}

/** Serves the application on a socket, upgrades included. */
export async function startServer(options: ServerOptions): Promise<HttpServer> {
  const { app, log } = options
  const listener = getRequestListener(app.fetch, {
    overrideGlobalObjects: false,
    // What can't even be made a request of: a bad URL, a missing Host.
    errorHandler: (error) => {
      log.info({ err: error }, 'a request that is none')
      const { headers, body } = malformed()
      return new Response(body, { status: 400, headers })
    },
  })
  const answering = new Set<ServerResponse>()
  const answer = (request: IncomingMessage, response: ServerResponse) => {
    answering.add(response)
    response.once('close', () => answering.delete(response))
    void listener(request, response)
  }
  const server = createServer(
    {
      keepAliveTimeout: 65_000,
      headersTimeout: 30_000,
      // Bodies are timed where they are read: a snapshot of 16 GB takes its time.
      requestTimeout: 0,
      noDelay: true,
      // Refused below, in the shape of all errors.
      requireHostHeader: false,
      shouldUpgradeCallback: (request) => request.method === 'GET',
    },
    answer,
  )
  // An expectation that nobody knows may be passed over (RFC 9110, section 10.1.1); Node would refuse it without a body.
  server.on('checkExpectation', answer)
  const upgraded = new Set<Duplex>()
  server.on('upgrade', (request, socket, head) => {
    upgraded.add(socket)
    socket.once('close', () => upgraded.delete(socket))
    // Whoever takes the connection over brings handlers of its own; until then a reset must not end the process.
    socket.on('error', (error) => log.debug({ err: error }, 'an upgraded connection broke'))
    void listener(request, responseForUpgrade(request, socket, head))
  })
  server.on('clientError', (error: NodeJS.ErrnoException, socket) => {
    if (error.code === 'ECONNRESET' || !socket.writable) return socket.destroy()
    const { headers, body } = malformed(error.code)
    const lines = Object.entries(headers).map(([name, value]) => `${name}: ${value}\r\n`)
    socket.end(`HTTP/1.1 400 Bad Request\r\n${lines.join('')}Connection: close\r\n\r\n${body}`)
  })
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject)
    server.listen({ port: options.port, host: options.host }, () => {
      server.off('error', reject)
      resolve()
    })
  })
  return {
    port: (server.address() as AddressInfo).port,
    close: async () => {
      const closed = new Promise<void>((resolve) => server.close(() => resolve()))
      options.stop()
      server.closeIdleConnections()
      await settled(answering, options.drainMs ?? 10_000)
      server.closeAllConnections()
      // Only now: what was in flight may have needed a tunnel.
      for (const socket of upgraded) socket.destroy()
      await closed
    },
  }
}

/** Until all responses are through, or the time is up. */
async function settled(answering: Set<ServerResponse>, patienceMs: number): Promise<void> {
  const all = Promise.all([...answering].map((response) => new Promise((resolve) => response.once('close', resolve))))
  const timer = new AbortController()
  await Promise.race([all, sleep(patienceMs, undefined, { signal: timer.signal }).catch(() => undefined)])
  timer.abort()
}

/** The answer to what never became a request; it has the shape of every other. */
function malformed(code?: string) {
  const message =
    code === 'HPE_HEADER_OVERFLOW'
      ? 'URL and headers together are longer than 16 KiB, the most that is taken here'
      : 'This is not a request of HTTP/1.1 that can be understood'
  const requestId = makeRequestId()
  const error = new ApiError('VALIDATION_ERROR', message, { details: [{ path: 'request', message }] })
  const body = JSON.stringify(asError(error, requestId))
  const length = String(Buffer.byteLength(body))
  return {
    body,
    headers: { 'X-Request-Id': requestId, 'Content-Type': 'application/json', 'Content-Length': length },
  }
}
