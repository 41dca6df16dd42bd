import { type IncomingMessage, ServerResponse } from 'node:http'
import { constants, type IncomingHttpHeaders, type ServerHttp2Stream } from 'node:http2'
import type { Socket } from 'node:net'
import type { Readable, Writable } from 'node:stream'
import type { EgressReason } from '@paws/api'

const LINGER_MS = 1000

/** A connection that a sandbox made to an address of one name. */
export interface Connection {
  socket: Socket
  /** Whom the dialled address stands for; undefined when it stands for nobody */
  name: string | undefined
  /** The dialled address */
  address: string
  port: number
  tls: boolean
  /** Exchanges under way, each with the way to break it off: for a reason, or because the sandbox ends */
  open: Set<(reason?: EgressReason) => void>
}

/** One request and the place for its answer, the same for HTTP/1 and HTTP/2. */
export interface Exchange {
  connection: Connection
  method: string
  /** As it was sent: a path, or a whole address */
  target: string
  /** What Host and :authority said, each time they said it */
  hosts: string[]
  /** Name, value, name, value, …: as they came, without those of HTTP/2 itself */
  headers: string[]
  body: Readable | undefined
  answer: Writable
  begin(status: number, text: string, headers: Record<string, string | string[]>): void
  /** Leaves the client no doubt that the answer is not whole */
  abort(): void
}

export function http1Exchange(connection: Connection, request: IncomingMessage, response: ServerResponse): Exchange {
  const { rawHeaders, method = '', url = '' } = request
  const hosts: string[] = []
  let hasBody = false
  for (let at = 0; at < rawHeaders.length; at += 2) {
    const name = rawHeaders[at] as string
    // Lengths first: most headers are neither, and this runs for all.
    if (name.length === 4 && name.toLowerCase() === 'host') hosts.push(rawHeaders[at + 1] as string)
    else if (name.length === 14 && name.toLowerCase() === 'content-length') hasBody ||= rawHeaders[at + 1] !== '0'
    else if (name.length === 17 && name.toLowerCase() === 'transfer-encoding') hasBody = true
  }
  return {
    connection,
    method,
    target: url,
    hosts,
    headers: rawHeaders,
    body: hasBody ? request : undefined,
    answer: response,
    begin: (status, text, headers) => {
      response.sendDate = false
      response.writeHead(status, text, headers)
    },
    abort: () => void response.destroy(),
  }
}

/**
 * A request to change the protocol: HTTP has let go of its connection, which is taken up again only if it is answered
 * by HTTP after all. Nothing that came behind the request is read then.
 */
export function upgradeExchange(connection: Connection, request: IncomingMessage): Exchange {
  const { socket } = connection
  let response: ServerResponse | undefined
  const taken = () => {
    if (response) return response
    response = new ServerResponse(request)
    response.shouldKeepAlive = false
    response.assignSocket(socket)
    response.once('finish', () => {
      socket.end()
      // Unread, what still comes would make the kernel throw the answer away with the connection.
      socket.resume()
      setTimeout(() => socket.destroy(), LINGER_MS).unref()
    })
    return response
  }
  return {
    connection,
    method: request.method ?? '',
    target: request.url ?? '',
    hosts: hostsOf(request.rawHeaders),
    headers: request.rawHeaders,
    body: undefined,
    get answer() {
      return taken()
    },
    begin: (status, text, headers) => {
      taken().writeHead(status, text, headers)
    },
    abort: () => void socket.destroy(),
  }
}

function hostsOf(headers: string[]): string[] {
  return headers.filter((_, at) => at % 2 === 1 && headers[at - 1]?.toLowerCase() === 'host')
}

export function http2Exchange(
  connection: Connection,
  stream: ServerHttp2Stream,
  headers: IncomingHttpHeaders,
  rawHeaders: string[],
): Exchange {
  const hosts: string[] = []
  const own: string[] = []
  for (let at = 0; at < rawHeaders.length; at += 2) {
    const name = rawHeaders[at] as string
    const value = rawHeaders[at + 1] as string
    if (name === ':authority' || name === 'host') hosts.push(value)
    // Split for compression only; HTTP/1 has but one.
    else if (!name.startsWith(':') && name !== 'cookie') own.push(name, value)
  }
  if (headers.cookie !== undefined) own.push('cookie', headers.cookie)
  if (headers.expect === '100-continue') stream.additionalHeaders({ ':status': constants.HTTP_STATUS_CONTINUE })
  return {
    connection,
    method: headers[':method'] ?? '',
    target: headers[':path'] ?? '',
    // Saying the same twice is what some clients do that come from HTTP/1.
    hosts: hosts.length === 2 && hosts[0] === hosts[1] ? hosts.slice(1) : hosts,
    headers: own,
    body: stream.endAfterHeaders ? undefined : stream,
    answer: stream,
    begin: (status, _text, answered) => {
      const { connection: _close, ...allowed } = answered
      stream.respond({ ...allowed, ':status': status }, { sendDate: false } as object)
    },
    abort: () => stream.close(constants.NGHTTP2_INTERNAL_ERROR),
  }
}
