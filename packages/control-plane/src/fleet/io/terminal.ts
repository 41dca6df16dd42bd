import type { IncomingMessage } from 'node:http'
import type { ClientHttp2Stream } from 'node:http2'
import type { Duplex } from 'node:stream'
import {
  encodeFrame,
  encodeJsonFrame,
  frameDecoder,
  maxFrameBytes,
  type TunnelError,
  type TunnelExit,
  type TunnelTerminal,
} from '@paws/api'
import type { Logger } from 'pino'
import { WebSocket, WebSocketServer } from 'ws'
import { askSession, type IoServices } from './reach.ts'

export interface TerminalOptions extends TunnelTerminal {
  orgId: string
  sessionId: string
  log: Logger
  /** Aborts when the client has left, which hangs up */
  signal: AbortSignal
}

/** What waits for a client that reads slowly; beyond it the terminal waits too. */
const mostBufferedBytes = 256 * 1024
/** A client that is silent for two of these has gone. */
const pingMs = 20_000

const server = new WebSocketServer({ noServer: true, maxPayload: maxFrameBytes, perMessageDeflate: false })

/**
 * Opens a terminal in a running session.
 *
 * @returns what takes over the client's connection: bytes both ways, JSON texts beside them, the exit before the close
 */
export async function openTerminal(services: IoServices, { rows, cols, log, ...options }: TerminalOptions) {
  const path = `terminal?${new URLSearchParams({ rows: String(rows), cols: String(cols) })}`
  const { stream } = await askSession(services, { ...options, action: 'terminal', method: 'POST', path })
  return (request: IncomingMessage, socket: Duplex, head: Buffer) => {
    socket.once('close', () => stream.destroy())
    server.handleUpgrade(request, socket, head, (client) => {
      client.on('error', (error) => log.debug({ err: error }, 'a terminal broke'))
      keepAlive(client)
      fromClient(client, stream)
      toClient(client, stream).catch((error: unknown) => {
        log.debug({ err: error }, 'a terminal ended early')
        client.close(1011, 'The session is out of reach')
      })
    })
  }
}

function fromClient(client: WebSocket, stream: ClientHttp2Stream) {
  client.on('message', (data: Buffer, isBinary) => {
    const frame = isBinary ? encodeFrame('data', data) : resizeFrame(String(data))
    if (!frame) return client.close(1008, 'Texts are {"type":"resize","rows":1-1000,"cols":1-1000}')
    if (stream.destroyed || stream.write(frame)) return
    // Whoever types faster than the program reads waits.
    client.pause()
    stream.once('drain', () => client.resume())
  })
  client.on('close', () => stream.destroy())
}

function resizeFrame(text: string): Buffer | undefined {
  let message: { type?: unknown; rows?: unknown; cols?: unknown } | null
  try {
    message = JSON.parse(text)
  } catch {
    // What isn't JSON is refused like any other wrong text.
    return undefined
  }
  const isSize = (value: unknown) => Number.isInteger(value) && (value as number) >= 1 && (value as number) <= 1000
  if (message?.type !== 'resize' || !isSize(message.rows) || !isSize(message.cols)) return undefined
  return encodeJsonFrame('resize', { rows: message.rows, cols: message.cols })
}

async function toClient(client: WebSocket, stream: ClientHttp2Stream) {
  const decode = frameDecoder()
  for await (const bytes of stream) {
    for (const { kind, payload } of decode(bytes as Buffer)) {
      if (client.readyState !== WebSocket.OPEN) return
      if (kind === 'data') await send(client, payload)
      if (kind === 'exit') {
        const { exitCode } = JSON.parse(String(payload)) as TunnelExit
        client.send(JSON.stringify({ type: 'exit', exitCode }))
        return client.close(1000)
      }
      if (kind === 'error') {
        const { code } = JSON.parse(String(payload)) as TunnelError
        return client.close(1011, code)
      }
    }
  }
  client.close(1011, 'WORKER_UNREACHABLE')
}

async function send(client: WebSocket, bytes: Buffer) {
  const { promise, resolve } = Promise.withResolvers<void>()
  // A client that has gone takes nothing more: the loop sees that it is closed.
  client.send(bytes, { binary: true }, () => resolve())
  if (client.bufferedAmount > mostBufferedBytes) await promise
}

function keepAlive(client: WebSocket) {
  let answered = true
  const timer = setInterval(() => {
    if (!answered) return client.terminate()
    answered = false
    client.ping()
  }, pingMs)
  for (const sign of ['pong', 'message']) {
    client.on(sign, () => {
      answered = true
    })
  }
  client.on('close', () => clearInterval(timer))
}
