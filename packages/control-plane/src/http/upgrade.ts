import { type IncomingMessage, ServerResponse } from 'node:http'
import type { Duplex } from 'node:stream'
import { ApiError } from '../errors.ts'

interface Upgrade {
  socket: Duplex
  head: Buffer
}

const upgrades = new WeakMap<IncomingMessage, Upgrade>()

/**
 * Gives a request for an upgrade a response like any other's, so that it goes through the very same loop:
 * refusals are written on the socket as plain HTTP.
 */
export function responseForUpgrade(request: IncomingMessage, socket: Duplex, head: Buffer): ServerResponse {
  upgrades.set(request, { socket, head })
  const response = new ServerResponse(request)
  response.shouldKeepAlive = false
  // Node types it for sockets of its own server; that is what upgrades bring.
  response.assignSocket(socket as Parameters<ServerResponse['assignSocket']>[0])
  response.once('finish', () => socket.end())
  return response
}

/** The connection that a request asks to take over, if it does. */
export function upgradeOf(request: IncomingMessage): Upgrade | undefined {
  return upgrades.get(request)
}

/** Hands the connection over; from here on it isn't HTTP's any more. */
export function takeUpgrade(
  request: IncomingMessage,
  response: ServerResponse,
  upgrade: (request: IncomingMessage, socket: Duplex, head: Buffer) => void,
): void {
  const taken = upgrades.get(request)
  if (!taken) throw new Error('Only a request for an upgrade can be upgraded')
  response.detachSocket(taken.socket as Parameters<ServerResponse['detachSocket']>[0])
  upgrade(request, taken.socket, taken.head)
}

/**
 * Makes sure that a WebSocket can be opened, while a refusal can still have the shape of all others.
 *
 * @throws VALIDATION_ERROR naming the header; RFC 6455, section 4.2.1
 */
export function assertWebSocket(headers: Headers): void {
  const refuse = (path: string, message: string) => {
    throw new ApiError('VALIDATION_ERROR', `${path}: ${message}`, { details: [{ path, message }] })
  }
  if (headers.get('upgrade')?.toLowerCase() !== 'websocket') refuse('Upgrade', 'Must be "websocket"')
  if (headers.get('sec-websocket-version') !== '13') refuse('Sec-WebSocket-Version', 'Must be 13')
  if (!/^[+/0-9A-Za-z]{22}==$/.test(headers.get('sec-websocket-key') ?? '')) {
    refuse('Sec-WebSocket-Key', 'Must be 16 bytes as base64')
  }
}
