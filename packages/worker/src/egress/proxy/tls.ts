import { constants } from 'node:crypto'
import type { Socket } from 'node:net'
import { createServer, type Server, type TLSSocket } from 'node:tls'
import type { EgressReason } from '@paws/api'
import { Failure } from './failure.ts'
import type { Leaves } from './leaf.ts'
import { plainName } from './policy.ts'

const HANDSHAKE_MS = 20_000

export interface Terminating {
  leaves: Leaves
  /** The name that has an address in this sandbox */
  nameOf(address: string): string | undefined
  /** A handshake that named the one host which has the dialled address */
  secured(socket: TLSSocket, address: string, name: string): void
  refused(reason: EgressReason, host: string | undefined): void
}

/** Ends TLS for one sandbox; made when it first speaks it, for most never do. */
export interface Terminator {
  take(socket: Socket): void
}

/** The address that was dialled: IPv4 comes to a listener of both kinds in IPv6's clothes. */
export const dialled = (socket: Socket): string => (socket.localAddress ?? '').replace(/^::ffff:|%.*$/g, '')

export function createTerminator({ leaves, nameOf, secured, refused }: Terminating): Terminator {
  const server: Server = createServer({
    ALPNProtocols: ['h2', 'http/1.1'],
    handshakeTimeout: HANDSHAKE_MS,
    // No handshake is resumed: it would ask for no certificate, and TLS 1.2 would not tell the name again.
    secureOptions: constants.SSL_OP_NO_TICKET,
    // Node calls this on the connection's own socket, which alone knows what was dialled.
    SNICallback: function (this: unknown, serverName, callback) {
      const name = nameOf(dialled(this as Socket))
      if (name === undefined || plainName(serverName) !== name) {
        callback(new Failure('sni-address-mismatch', serverName))
      } else {
        leaves(name).then((leaf) => callback(null, leaf), callback)
      }
    },
  })
  server.on('secureConnection', (socket) => {
    const address = dialled(socket)
    const name = nameOf(address)
    // Asked again, whatever made OpenSSL content.
    if (name !== undefined && plainName(String(socket.servername)) === name) return secured(socket, address, name)
    refused('sni-address-mismatch', String(socket.servername))
    socket.destroy()
  })
  server.on('tlsClientError', (error: Error & { code?: string }, socket) => {
    if (error instanceof Failure) refused(error.reason, error.message)
    else refused(reasonOf(error.code), nameOf(dialled(socket)))
    socket.destroy()
  })
  return { take: (socket) => void server.emit('connection', socket) }
}

/** Without a name there is no certificate, so that the handshake finds nothing to sign with. */
const nothingToSignWith = new Set(['ERR_SSL_NO_SHARED_CIPHER', 'ERR_SSL_NO_SUITABLE_SIGNATURE_ALGORITHM'])
const noRecords = new Set([
  'ERR_SSL_WRONG_VERSION_NUMBER',
  'ERR_SSL_HTTP_REQUEST',
  'ERR_SSL_HTTPS_PROXY_REQUEST',
  'ERR_SSL_PACKET_LENGTH_TOO_LONG',
  'ERR_SSL_BAD_RECORD_TYPE',
  'ERR_SSL_UNEXPECTED_MESSAGE',
  'ERR_SSL_UNKNOWN_PROTOCOL',
])

function reasonOf(code: string | undefined): EgressReason {
  if (code === undefined) return 'tls-failed'
  if (nothingToSignWith.has(code)) return 'sni-missing'
  return noRecords.has(code) ? 'not-tls' : 'tls-failed'
}
