import { once } from 'node:events'
import http from 'node:http'
import http2 from 'node:http2'
import https from 'node:https'
import type { Duplex } from 'node:stream'
import { setTimeout as sleep } from 'node:timers/promises'
import { keepTunnelAlive, tunnelMemoryMB, tunnelProtocol, tunnelSettings, tunnelWindowBytes } from '@paws/api'
import type { Logger } from 'pino'
import { backoffMs } from './client.ts'

export type TunnelStream = http2.ServerHttp2Stream
/** Answers one request of the control plane, on `stream`. */
export type TunnelServer = (stream: TunnelStream, headers: http2.IncomingHttpHeaders) => void

export interface TunnelOptions {
  url: URL
  credential: string
  serve: TunnelServer
  log: Logger
  /** How often the tunnel is tried, and how long its answer may take; 10 s */
  pingMs?: number
}

export interface Tunnel {
  /** Resolves when it is open for the first time */
  readonly opened: Promise<void>
  close(): Promise<void>
}

/**
 * Keeps a connection to the control plane on which the control plane asks and this worker answers. The worker dials,
 * so it needs no open port; a connection that breaks is dialled again.
 */
export function openTunnel(options: TunnelOptions): Tunnel {
  const { log } = options
  const closing = new AbortController()
  const { promise: opened, resolve: open } = Promise.withResolvers<void>()
  let session: http2.ServerHttp2Session | undefined
  let socket: Duplex | undefined

  async function keep() {
    for (let failures = 0; !closing.signal.aborted; failures++) {
      try {
        socket = await dial(options, closing.signal)
        session = serveOn(socket, options)
        failures = 0
        open()
        log.debug('The tunnel is open')
        if (!socket.closed) await once(socket, 'close')
      } catch (error) {
        if (closing.signal.aborted) return
        log[failures === 3 ? 'warn' : 'debug']({ err: error }, 'The tunnel could not be opened; trying on')
      }
      // An aborted wait means closing, which the loop sees.
      await sleep(backoffMs(failures), undefined, { signal: closing.signal }).catch(() => undefined)
    }
  }
  const kept = keep()

  return {
    opened,
    async close() {
      closing.abort()
      session?.close()
      // A session that is closing would wait for the peer to end the socket, however long.
      const timer = setTimeout(() => socket?.destroy(), 500)
      await kept
      clearTimeout(timer)
    },
  }
}

/** @throws unless the control plane switches protocols within 15 s */
async function dial({ url, credential }: TunnelOptions, closing: AbortSignal): Promise<Duplex> {
  closing.throwIfAborted()
  const request = (url.protocol === 'https:' ? https : http).request(new URL('worker/tunnel', directory(url)), {
    headers: { authorization: `Bearer ${credential}`, connection: 'Upgrade', upgrade: tunnelProtocol },
    // A connection of its own: it never goes back to a pool.
    agent: false,
  })
  request.end()
  const { promise, resolve, reject } = Promise.withResolvers<Duplex>()
  // Not as the request's `signal`: that would go on to cut the tunnel.
  const giveUp = () => request.destroy(new Error('The control plane did not open the tunnel in time'))
  const timer = setTimeout(giveUp, 15_000)
  closing.addEventListener('abort', giveUp)
  request.on('error', reject)
  request.on('response', (response) => {
    response.resume()
    reject(new Error(`The control plane refused the tunnel with ${response.statusCode}`))
  })
  request.on('upgrade', (_, socket, head) => {
    if (head.length > 0) socket.unshift(head)
    resolve(socket)
  })
  return promise.finally(() => {
    clearTimeout(timer)
    closing.removeEventListener('abort', giveUp)
  })
}

function directory(url: URL): URL {
  return new URL(`${url.pathname.replace(/\/$/, '')}/`, url)
}

function serveOn(socket: Duplex, { serve, log, pingMs = 10_000 }: TunnelOptions): http2.ServerHttp2Session {
  socket.on('error', (error) => log.info({ err: error }, "The tunnel's socket failed"))
  if ('setNoDelay' in socket && typeof socket.setNoDelay === 'function') socket.setNoDelay(true)
  const session = http2.performServerHandshake(socket, { settings: tunnelSettings, maxSessionMemory: tunnelMemoryMB })
  session.setLocalWindowSize(tunnelWindowBytes)
  session.on('error', (error) => log.info({ err: error }, 'The tunnel broke'))
  session.on('stream', (stream: TunnelStream, headers) => {
    // Whoever serves the stream hears of its errors; one that comes after must not end the worker.
    stream.on('error', () => undefined)
    serve(stream, headers)
  })
  keepTunnelAlive(session, socket, pingMs, () =>
    log.warn('The control plane does not answer in the tunnel: dialling again'),
  )
  return session
}
