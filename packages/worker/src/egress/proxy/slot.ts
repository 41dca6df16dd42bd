import { createSocket, Socket as DatagramSocket } from 'node:dgram'
import { createServer, type Server, type Socket } from 'node:net'
import type { Allow, FromEgress, Listen } from '../messages.ts'
import type { Connection, Exchange } from './exchange.ts'
import { forward, type Way } from './forward.ts'
import { createLeaves } from './leaf.ts'
import { createNames } from './names.ts'
import { compileRules, type Rules } from './policy.ts'
import { createRecords, refusal } from './records.ts'
import { serveDatagrams, serveStream } from './resolver.ts'
import type { Servers } from './servers.ts'
import { createTerminator, dialled, type Terminator } from './tls.ts'
import { upgrade } from './upgrade.ts'
import { createHosts, type Upstream } from './upstream.ts'

/** One sandbox must not take the connections of all. */
const MOST_CONNECTIONS = 512
const portOf: Record<Listen['what'], number> = { http: 80, https: 443, 'dns-tcp': 53, 'dns-udp': 53 }

export interface SlotOptions {
  name: string
  upstream: Upstream
  servers: Servers
  measure: { scrub: boolean; audit: boolean }
  /** Resolves once it is on its way */
  send(message: FromEgress): Promise<void>
}

/** All that is held for one sandbox. */
export interface Slot {
  listen(what: Listen['what'], handle: unknown): void
  allow(message: Pick<Allow, 'rules' | 'authority' | 'pins'>): void
  recorded(count: number): void
  /** Breaks off whatever is open, and forgets the rules with their secrets */
  close(): void
}

export function createSlot({ name: slot, upstream, servers, measure, send }: SlotOptions): Slot {
  let rules: Rules | undefined
  let terminator: Terminator | undefined
  const sockets = new Set<Socket>()
  const connections = new Set<Connection>()
  const listeners: (Server | DatagramSocket)[] = []
  const records = createRecords((batch) => void send({ type: 'records', slot, records: batch }))
  const hosts = createHosts(upstream)
  const way: Way = {
    rules: () => rules,
    hosts,
    records,
    scrub: measure.scrub,
    open: 0,
    webSockets: 0,
    messages: { bytes: 0 },
    held: 0,
  }
  const names = createNames({ slot, rules: () => rules, records, send })

  const take = (socket: Socket, what: keyof typeof serve) => {
    socket.on('error', () => socket.destroy())
    if (sockets.size >= MOST_CONNECTIONS) {
      records.refuseOnce('too-many-connections', portOf[what], { host: dialled(socket) })
      return void socket.destroy()
    }
    sockets.add(socket)
    socket.once('close', () => sockets.delete(socket))
    serve[what](socket)
  }
  const open = (socket: Socket, address: string, hostName: string | undefined, tls: boolean) => {
    const connection: Connection = { socket, name: hostName, address, port: tls ? 443 : 80, tls, open: new Set() }
    connections.add(connection)
    socket.once('close', () => connections.delete(connection))
    servers.serve({
      connection,
      request: (exchange) => void forward(way, exchange).catch(unforeseen(exchange)),
      webSocket: (exchange, request, head) => {
        void upgrade(way, exchange, request, head).catch(unforeseen(exchange))
      },
      refused: (reason, rest) => {
        const at = { host: hostName ?? address, ...rest }
        records.add(refusal(reason, connection.port, at))
      },
    })
  }
  const withRoom = async (socket: Socket, go: (address: string, hostName: string | undefined) => void) => {
    const address = dialled(socket)
    const room = records.room()
    if (room) await room
    if (!socket.destroyed) go(address, names.nameOf(address))
  }
  const serve: Record<Exclude<Listen['what'], 'dns-udp'>, (socket: Socket) => void> = {
    // Whatever may be recorded of a connection has room first: of what is malformed, too.
    http: (socket) => {
      void withRoom(socket, (address, hostName) => open(socket, address, hostName, false))
    },
    https: (socket) => {
      void withRoom(socket, (address, hostName) => {
        if (hostName !== undefined && rules?.hostOf(hostName)) return terminator?.take(socket)
        records.add(refusal(hostName ? 'name-not-allowed' : 'address-not-pinned', 443, { host: hostName ?? address }))
        socket.destroy()
      })
    },
    'dns-tcp': (socket) => serveStream(socket, names.resolve),
  }

  return {
    listen: (what, handle) => {
      if (what === 'dns-udp') {
        const socket = openDatagrams(handle)
        serveDatagrams(socket, names.resolve, () => records.room() !== undefined)
        listeners.push(socket)
      } else {
        const server = createServer({ noDelay: true }, (socket) => take(socket, what))
        // The kernel may have no descriptor left for the next one; that is no reason to end all others.
        server.on('error', () => undefined)
        listeners.push(server.listen(handle))
      }
    },
    allow: ({ rules: fresh, authority, pins: earlier }) => {
      const isFirst = rules === undefined
      rules = compileRules({ ...fresh, auditLog: fresh.auditLog && measure.audit })
      if (isFirst) {
        terminator = createTerminator({
          leaves: createLeaves(authority),
          nameOf: names.nameOf,
          secured: (socket, address, hostName) => open(socket, address, hostName, true),
          refused: (reason, host) => records.add(refusal(reason, 443, host === undefined ? {} : { host })),
        })
      }
      names.prepare(rules.exact, isFirst ? earlier : [])
      if (!isFirst) tighten()
    },
    recorded: records.kept,
    close: () => {
      for (const listener of listeners) listener.close()
      // Their records go before the word that all is closed.
      for (const { open: exchanges } of connections) for (const breakOff of exchanges) breakOff()
      for (const socket of sockets) socket.destroy()
      hosts.close()
      rules = undefined
      terminator = undefined
      records.close()
    },
  }

  /** Breaks what the rules don't allow any more. */
  function tighten(): void {
    const isAllowed = (hostName: string | undefined) => hostName === undefined || rules?.hostOf(hostName) !== undefined
    for (const connection of connections) {
      if (isAllowed(connection.name)) continue
      for (const breakOff of connection.open) breakOff('rules-changed')
    }
    for (const socket of sockets) if (!isAllowed(names.nameOf(dialled(socket)))) socket.destroySoon()
    hosts.keepOnly(({ name, operator }) => rules?.hostOf(name)?.operator === operator)
  }
}

/** A fault of ours ends the exchange that met it, and is told to the operator: other sandboxes have no part in it. */
const unforeseen = (exchange: Exchange) => (fault: Error) => {
  process.emitWarning(fault)
  exchange.abort()
}

function openDatagrams(handle: unknown): DatagramSocket {
  const socket = handle instanceof DatagramSocket ? handle : createSocket(kindOf(handle as BareSocket))
  socket.on('error', () => undefined)
  if (socket !== handle) (socket.bind as (handle: unknown) => void).call(socket, handle)
  return socket
}

/** A socket as Node itself holds it: that is what another process's comes as. */
interface BareSocket {
  getsockname(into: { family?: string }): number
}

/** A host without IPv6 has sockets of the other kind, which answer by other addresses. */
function kindOf(handle: BareSocket): 'udp4' | 'udp6' {
  const name: { family?: string } = {}
  handle.getsockname(name)
  return name.family === 'IPv4' ? 'udp4' : 'udp6'
}
