import type { IncomingMessage } from 'node:http'
import type { Socket } from 'node:net'
import { WebSocket, WebSocketServer } from 'ws'
import { type Holding, openHolding } from './held.ts'
import { openMessageScrub, type Placeholders, type Secrets, scrubText, swapText } from './scrub/index.ts'

/** It is held, twice at times, until the whole of it has come. */
const MAX_MESSAGE_BYTES = 16 * 1024 * 1024
/** So much may wait for the slower side. */
const MAX_BUFFERED_BYTES = 1024 * 1024
const MAX_EARLY_PIECES = 16

export interface WebSocketRelay {
  /** The client's request to upgrade, with what came of its connection so far; nothing has been answered */
  request: IncomingMessage
  socket: Socket
  head: Buffer
  /** A connection to the host, verified if need be */
  upstream: Socket
  /** As they go to the host */
  host: string
  target: string
  /** Name, value, name, value, …; those of the handshake itself are made here */
  headers: string[]
  /** Without them what the host sends passes as it is */
  secrets: Secrets | undefined
  placeholders: Placeholders | undefined
  /** Bytes of messages that all WebSockets of this sandbox hold */
  held: { bytes: number }
  /** The host gave another answer than the one asked for; it is the caller's to hand on */
  declined(answer: IncomingMessage): void
  /** The host broke off before it answered */
  failed(error: Error): void
  /** It took place, and is over */
  ended(sizes: { requestBytes: number; responseBytes: number }): void
}

/** Whether it is well-formed, so that only the host can decline it. */
export function asksForWebSocket({ method, headers }: IncomingMessage): boolean {
  const { upgrade = '', 'sec-websocket-key': key = '', 'sec-websocket-version': version } = headers
  return (
    method === 'GET' && upgrade.toLowerCase() === 'websocket' && version === '13' && /^[+/0-9A-Za-z]{22}==$/.test(key)
  )
}

/**
 * Relays a WebSocket, message by message: that is what secrets are searched in, and what placeholders are swapped in.
 * Exactly one of `declined`, `failed` and `ended` is called.
 *
 * @returns breaks both sides off
 */
export function relayWebSocket(relay: WebSocketRelay): () => void {
  const { socket, upstream } = relay
  const breakOff = () => {
    socket.destroy()
    upstream.destroy()
  }
  try {
    converse(relay)
  } catch (error) {
    // Names of protocols that are none, say.
    upstream.destroy()
    relay.failed(error as Error)
  }
  return breakOff
}

function converse(relay: WebSocketRelay): void {
  const { socket } = relay
  const offered = listOf(relay.request.headers['sec-websocket-protocol'] ?? '')
  const { headers, protocols } = handshake(relay.headers)
  const host = open(relay, headers, protocols)
  let isSettled = false
  let response: IncomingMessage | undefined
  const early = [relay.head]
  const collect = (bytes: Buffer) => {
    early.push(bytes)
    // Nobody speaks before the host has answered; who does is not heard to the end.
    if (early.length > MAX_EARLY_PIECES) socket.pause()
  }
  const settle = (tell: () => void) => {
    socket.off('data', collect).off('end', leave).off('close', leave)
    if (isSettled) return
    isSettled = true
    try {
      tell()
    } catch (error) {
      // Thrown out of an event it would end the process, with every sandbox's connections.
      process.emitWarning(error as Error)
      host.terminate()
      socket.destroy()
      relay.ended({ requestBytes: 0, responseBytes: 0 })
    }
  }
  const leave = () => {
    host.terminate()
    socket.destroy()
    settle(() => relay.ended({ requestBytes: 0, responseBytes: 0 }))
  }
  // That the client leaves is noticed only by reading.
  socket.on('data', collect).once('end', leave).once('close', leave)
  host.on('error', (error) => settle(() => relay.failed(error)))
  host.once('unexpected-response', (_request, answer) => settle(() => relay.declined(answer)))
  host.once('upgrade', (answer) => {
    response = answer
  })
  host.once('open', () => {
    settle(() => {
      const client = accept(
        { ...relay, head: Buffer.concat(early) },
        response,
        offered[protocols.indexOf(host.protocol)],
      )
      if (client) pair(relay, client, host)
      else {
        host.terminate()
        relay.ended({ requestBytes: 0, responseBytes: 0 })
      }
    })
  })
}

/** Makes of headers that go out those of a handshake; protocols are one of its parts. */
function handshake(flat: string[]): { headers: Record<string, string[]>; protocols: string[] } {
  // Without a prototype: "constructor" and "__proto__" are names like others.
  const headers: Record<string, string[]> = Object.create(null)
  const protocols: string[] = []
  for (let at = 0; at < flat.length; at += 2) {
    const [name = '', value = ''] = flat.slice(at, at + 2)
    const lowerName = name.toLowerCase()
    if (lowerName === 'sec-websocket-protocol') protocols.push(...listOf(value))
    else if (!lowerName.startsWith('sec-websocket-')) headers[lowerName] = [...(headers[lowerName] ?? []), value]
  }
  return { headers, protocols }
}

const listOf = (text: string) => text.split(',').flatMap((item) => item.trim() || [])

function open({ upstream, host, target }: WebSocketRelay, headers: Record<string, string[]>, protocols: string[]) {
  const options = {
    // Types say that each header has one value; it is handed to node:http as it is.
    headers: headers as Record<string, never>,
    createConnection: () => upstream,
    perMessageDeflate: false,
    autoPong: false,
    maxPayload: MAX_MESSAGE_BYTES,
    finishRequest: (request: { path: string; end(): void }) => {
      // A URL would have made another path of some.
      request.path = target
      request.end()
    },
  }
  return new WebSocket(`ws://${host}/`, protocols, options as unknown as WebSocket.ClientOptions)
}

/**
 * Says to the client what the host has said.
 *
 * @returns nothing when the client has left
 */
function accept(
  { request, socket, head, secrets }: WebSocketRelay,
  response: IncomingMessage | undefined,
  protocol: string | undefined,
): WebSocket | undefined {
  const server = new WebSocketServer({
    noServer: true,
    clientTracking: false,
    perMessageDeflate: false,
    autoPong: false,
    maxPayload: MAX_MESSAGE_BYTES,
    handleProtocols: () => protocol ?? false,
  })
  server.once('headers', (lines: string[]) => {
    const raw = response?.rawHeaders ?? []
    for (let at = 0; at < raw.length; at += 2) {
      const [name = '', value = ''] = raw.slice(at, at + 2)
      if (/^(?:connection|upgrade|sec-websocket-.*|transfer-encoding|content-length|alt-svc)$/i.test(name)) continue
      const line = `${name}: ${value}`
      lines.push(secrets ? scrubText(secrets, line) : line)
    }
  })
  let client: WebSocket | undefined
  server.handleUpgrade(request, socket, head, (accepted) => {
    client = accepted
  })
  return client
}

/** Lets both speak with each other until one of them ends it. */
function pair(relay: WebSocketRelay, client: WebSocket, host: WebSocket): void {
  const { secrets, placeholders, ended } = relay
  const holding = openHolding(relay.held)
  const sizes = { requestBytes: 0, responseBytes: 0 }
  const clean = (text: Buffer) => (secrets ? Buffer.from(scrubText(secrets, text.toString('latin1')), 'latin1') : text)
  const toClient = createSender(client, host, holding)
  const toHost = createSender(host, client, holding)
  const scrub = secrets && openMessageScrub(secrets, ({ bytes, binary }) => toClient.message(bytes, binary))

  host.on('message', (data: Buffer, binary) => {
    sizes.responseBytes += data.length
    if (scrub) scrub.push({ bytes: data, binary })
    else toClient.message(data, binary)
  })
  client.on('message', (data: Buffer, binary) => {
    sizes.requestBytes += data.length
    toHost.message(placeholders ? swapMessage(placeholders, data, binary) : data, binary)
  })
  host.on('ping', (data) => toClient.ping(clean(data)))
  host.on('pong', (data) => toClient.pong(clean(data)))
  client.on('ping', toHost.ping)
  client.on('pong', toHost.pong)
  const broken = { client: 0, host: 0 }
  client.on('error', (error) => (broken.client = codeFor(error)))
  host.on('error', (error) => (broken.host = codeFor(error)))
  holding.watch(relay.socket, client, () => {
    broken.client = 1009
    client.terminate()
  })
  holding.watch(relay.upstream, host, () => {
    broken.host = 1009
    host.terminate()
  })
  host.once('close', (code, reason) => {
    scrub?.end()
    toClient.close(broken.host || code, clean(reason))
  })
  client.once('close', (code, reason) => toHost.close(broken.client || code, reason))
  let open = 2
  for (const side of [client, host]) {
    side.once('close', () => {
      open--
      if (open > 0) return
      holding.end()
      ended(sizes)
    })
  }
}

/** Sends to one side, and has the other wait while too much is on its way. */
function createSender(to: WebSocket, from: WebSocket, holding: Holding) {
  const slow = () => {
    if (to.bufferedAmount > MAX_BUFFERED_BYTES) from.pause()
  }
  const sent = () => {
    if (from.isPaused && to.bufferedAmount <= MAX_BUFFERED_BYTES) from.resume()
  }
  const ifOpen = (send: () => void) => {
    if (to.readyState !== WebSocket.OPEN) return
    send()
    slow()
  }
  return {
    message: (bytes: Buffer, binary: boolean) =>
      ifOpen(() => {
        holding.change(bytes.length)
        to.send(bytes, { binary }, () => {
          holding.change(-bytes.length)
          sent()
        })
      }),
    ping: (data: Buffer) => ifOpen(() => to.ping(data, undefined, sent)),
    pong: (data: Buffer) => ifOpen(() => to.pong(data, undefined, sent)),
    close(code: number, reason: Buffer) {
      // What waited for the other side need not any more.
      if (to.isPaused) to.resume()
      // 1005 stands for a close without a code; 1006 for none at all, which can't be said either.
      if (code === 1005) to.close()
      else if (code === 1006) to.terminate()
      else to.close(code, reason)
    },
  }
}

/** What a broken conversation is called on its other side. */
function codeFor(error: Error): number {
  const code = 'code' in error ? error.code : undefined
  if (code === 'WS_ERR_UNSUPPORTED_MESSAGE_LENGTH') return 1009
  if (code === 'WS_ERR_INVALID_UTF8') return 1007
  return typeof code === 'string' && code.startsWith('WS_ERR_') ? 1002 : 1006
}

function swapMessage(placeholders: Placeholders, data: Buffer, binary: boolean): Buffer {
  const encoding = binary ? 'latin1' : 'utf8'
  const text = data.toString(encoding)
  const swapped = swapText(placeholders, text, /^\s*[[{]/.test(text) ? 'json' : 'raw')
  return swapped === text ? data : Buffer.from(swapped, encoding)
}
