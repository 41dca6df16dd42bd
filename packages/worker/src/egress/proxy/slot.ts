import { createSocket, Socket as DatagramSocket } from 'node:dgram'
import { createServer, type Server, type Socket } from 'node:net'
import type { EgressReason, EgressRecord } from '@paws/api'
import type { Allow, FromEgress, Listen } from '../messages.ts'
import type { Connection } from './exchange.ts'
import { forward, type Way } from './forward.ts'
import { createLeaves } from './leaf.ts'
import { createPins } from './pins.ts'
import { compileRules, plainName, type Rules } from './policy.ts'
import { createRecords, refusal } from './records.ts'
import { type Resolution, serveDatagrams, serveStream } from './resolver.ts'
import type { Servers } from './servers.ts'
import { createTerminator, dialled, type Terminator } from './tls.ts'
import { upgrade } from './upgrade.ts'
import { createHosts, type Upstream } from './upstream.ts'

/** One sandbox must not take the connections of all. */
const MOST_CONNECTIONS = 512
/** Of the same refusal: a flood of it is one thing that happened, and a client asks twice for each name. */
const SAME_MS = 1000

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
  let pins = createPins([])
  let terminator: Terminator | undefined
  const sockets = new Set<Socket>()
  const connections = new Set<Connection>()
  const listeners: (Server | DatagramSocket)[] = []
  const records = createRecords((batch) => void send({ type: 'records', slot, records: batch }))
  const hosts = createHosts(upstream)
  const way: Way = { rules: () => rules, hosts, records, scrub: measure.scrub, open: 0 }
  const refusedOnce = once((reason: EgressReason, port: number, rest: Partial<EgressRecord>) =>
    records.add(refusal(reason, port, rest)),
  )

  const take = (socket: Socket, what: keyof typeof serve) => {
    socket.on('error', () => socket.destroy())
    if (sockets.size >= MOST_CONNECTIONS) {
      refusedOnce('too-many-connections', portOf[what], { host: dialled(socket) })
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
      request: (exchange) => void forward(way, exchange),
      webSocket: (exchange, request, head) => void upgrade(way, exchange, request, head),
      refused: (reason, rest) => {
        const at = { host: hostName ?? address, ...rest }
        records.add(refusal(reason, connection.port, at))
      },
    })
  }
  const serve: Record<Exclude<Listen['what'], 'dns-udp'>, (socket: Socket) => void> = {
    http: (socket) => open(socket, dialled(socket), pins.nameOf(dialled(socket)), false),
    https: (socket) => {
      void (records.room() ?? Promise.resolve()).then(() => {
        const address = dialled(socket)
        const hostName = pins.nameOf(address)
        if (socket.destroyed) return
        if (hostName !== undefined && rules?.hostOf(hostName)) return terminator?.take(socket)
        records.add(refusal(hostName ? 'name-not-allowed' : 'address-not-pinned', 443, { host: hostName ?? address }))
        socket.destroy()
      })
    },
    'dns-tcp': (socket) => serveStream(socket, resolve),
  }

  const resolve = async (asked: string): Promise<Resolution> => {
    const room = records.room()
    if (room) await room
    const hostName = plainName(asked)
    if (hostName === undefined || !rules?.hostOf(hostName)) return refuseName('name-not-allowed', asked)
    const known = pins.addressOf(hostName)
    if (known !== undefined && told.has(hostName)) return { address: known }
    if (known === undefined && pins.full()) return refuseName('too-many-names', asked)
    const address = known ?? pins.pin(hostName)
    told.add(hostName)
    await send({ type: 'pinned', slot, name: hostName, address })
    return { address }
  }
  const refuseName = (reason: EgressReason, asked: string): Resolution => {
    refusedOnce(reason, 53, { host: asked })
    return 'no-such-name'
  }
  /** Pins that the worker knows of, and would hand over again */
  const told = new Set<string>()

  return {
    listen: (what, handle) => {
      if (what === 'dns-udp') {
        const socket = openDatagrams(handle)
        serveDatagrams(socket, resolve)
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
        pins = createPins(earlier)
        for (const pin of earlier) told.add(pin.name)
        const leaves = createLeaves(authority)
        terminator = createTerminator({
          leaves,
          nameOf: (address) => pins.nameOf(address),
          secured: (socket, address, hostName) => open(socket, address, hostName, true),
          refused: (reason, host) => records.add(refusal(reason, 443, host === undefined ? {} : { host })),
        })
      }
      for (const exact of rules.exact) if (pins.addressOf(exact) === undefined) pins.pin(exact)
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
    for (const socket of sockets) if (!isAllowed(pins.nameOf(dialled(socket)))) socket.destroySoon()
    hosts.keepOnly(({ name, operator }) => rules?.hostOf(name)?.operator === operator)
  }
}

function openDatagrams(handle: unknown): DatagramSocket {
  // A bare handle has its kind already; Node only wants one to be named.
  const socket = handle instanceof DatagramSocket ? handle : createSocket('udp6')
  socket.on('error', () => undefined)
  if (socket !== handle) (socket.bind as (handle: unknown) => void).call(socket, handle)
  return socket
}

/** Lets the same refusal through once in a while only. */
function once(record: (reason: EgressReason, port: number, rest: Partial<EgressRecord>) => void): typeof record {
  const last = new Map<string, number>()
  return (reason, port, rest) => {
    const key = reason === 'name-not-allowed' ? `${reason} ${rest.host}` : reason
    const now = performance.now()
    if (now - (last.get(key) ?? Number.NEGATIVE_INFINITY) < SAME_MS) return
    last.delete(key)
    last.set(key, now)
    if (last.size > 100) last.delete(last.keys().next().value as string)
    record(reason, port, rest)
  }
}
