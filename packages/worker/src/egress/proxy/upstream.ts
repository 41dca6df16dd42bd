import { Resolver, lookup as systemLookup } from 'node:dns'
import { connect as connectTcp, type LookupFunction, type Socket } from 'node:net'
import { networkInterfaces } from 'node:os'
import { connect as connectTls, createSecureContext, type SecureContext } from 'node:tls'
import { refusalOf } from '@paws/addresses'
import type { EgressReason } from '@paws/api'
import { type buildConnector, Pool } from 'undici'
import type { Configure } from '../messages.ts'
import { Failure } from './failure.ts'

const CONNECT_MS = 30_000
const IDLE_MS = 30_000
const KEEP_ALIVE_MS = 60_000
/** Long polls and quiet streams are what agents wait for: only a host that is gone ends them, which TCP tells. */
const SILENCE_MS = 2 * 3_600_000
const MOST_HEADER_BYTES = 64 * 1024
/** Of one sandbox to one host. */
const MOST_CONNECTIONS = 256
/** Of one sandbox: a wildcard has as many as it likes. */
const MOST_POOLS = 100
/** A look-up may occupy one of few threads for seconds: no sandbox shall have them all. */
const MOST_LOOKUPS = 2

/** What is the same for all sandboxes: whom to ask for addresses, and whom to believe. */
export interface Upstream {
  resolve: Map<string, { address: string; port: number }>
  resolver: Resolver | undefined
  trust: SecureContext
  operatorTrust: SecureContext
}

/** The hosts as one sandbox reaches them. Connections are never shared with another, nor between two hosts. */
export interface Hosts {
  /** Where requests to a host go, by HTTP/1.1 */
  pool(target: Target): Pool
  /** A connection of its own, for what isn't requests */
  dial(target: Target): Promise<Socket>
  /** Lets go of all that isn't of these */
  keepOnly(isWanted: (target: Target) => boolean): void
  close(): void
}

export interface Target {
  name: string
  tls: boolean
  /** May have an address that isn't public, and be vouched for by whom the machine believes */
  operator: boolean
}

export function createUpstream({ resolve, nameServers, trusted, machineTrusted }: Configure): Upstream {
  const resolver = nameServers.length > 0 ? new Resolver({ timeout: 3000, tries: 2 }) : undefined
  resolver?.setServers(nameServers)
  return {
    resolve: new Map(resolve.map(([from, to]) => [from, splitAddress(to)])),
    resolver,
    trust: createSecureContext({ ca: trusted }),
    operatorTrust: createSecureContext({ ca: [...trusted, ...machineTrusted] }),
  }
}

function splitAddress(text: string): { address: string; port: number } {
  const colon = text.lastIndexOf(':')
  return { address: text.slice(0, colon).replace(/^\[|\]$/g, ''), port: Number(text.slice(colon + 1)) }
}

export function createHosts(upstream: Upstream): Hosts {
  const lookups = limited(MOST_LOOKUPS)
  const pools = new Map<string, { target: Target; pool: Pool }>()
  const remove = (key: string) => {
    const entry = pools.get(key)
    pools.delete(key)
    // Only what is under way can fail by this, and is told so itself.
    entry?.pool.destroy().catch(() => undefined)
  }
  const retire = (key: string) => {
    const entry = pools.get(key)
    pools.delete(key)
    // What is under way is let finish, and says itself when it can not.
    entry?.pool.close().catch(() => undefined)
  }
  return {
    pool: (target) => {
      const key = `${target.tls ? 'https' : 'http'}://${target.name}`
      const known = pools.get(key)
      if (known) return known.pool
      const connect = connector(upstream, lookups, target)
      // The name stays out of it: what is a name need not be one for URLs.
      const pool = new Pool(target.tls ? 'https://upstream.invalid' : 'http://upstream.invalid', {
        connect,
        connections: MOST_CONNECTIONS,
        pipelining: 1,
        allowH2: false,
        headersTimeout: SILENCE_MS,
        bodyTimeout: SILENCE_MS,
        keepAliveTimeout: IDLE_MS,
        maxHeaderSize: MOST_HEADER_BYTES,
      })
      if (pools.size >= MOST_POOLS) retire(pools.keys().next().value as string)
      pools.set(key, { target, pool })
      return pool
    },
    dial: (target) => {
      const { promise, resolve, reject } = Promise.withResolvers<Socket>()
      connector(
        upstream,
        lookups,
        target,
      )({} as buildConnector.Options, (error, socket) => {
        if (error) reject(error)
        else resolve(socket as Socket)
      })
      return promise
    },
    keepOnly: (isWanted) => {
      for (const [key, { target }] of pools) if (!isWanted(target)) remove(key)
    },
    close: () => {
      for (const key of pools.keys()) remove(key)
    },
  }
}

function connector(upstream: Upstream, lookups: Limit, { name, tls, operator }: Target): buildConnector.connector {
  const fixed = upstream.resolve.get(`${name}:${tls ? 443 : 80}`)
  const where = fixed
    ? { host: fixed.address, port: fixed.port }
    : { host: name, port: tls ? 443 : 80, lookup: vettingLookup(upstream, lookups, operator) }
  const secureContext = operator ? upstream.operatorTrust : upstream.trust
  let session: Buffer | undefined

  return (_options, callback) => {
    const socket = tls
      ? connectTls({ ...where, servername: name, secureContext, session, ALPNProtocols: ['http/1.1'] })
      : connectTcp(where)
    if (tls) socket.on('session', (fresh: Buffer) => (session = fresh))
    const timer = setTimeout(() => {
      socket.destroy(new Failure('upstream-unreachable', `${name} did not take the connection in time`))
    }, CONNECT_MS)
    let isSettled = false
    const settle = (error: Error | null) => {
      clearTimeout(timer)
      if (isSettled) return
      isSettled = true
      if (error) callback(error, null)
      else callback(null, socket)
    }
    socket.setNoDelay(true)
    socket.setKeepAlive(true, KEEP_ALIVE_MS)
    socket.once(tls ? 'secureConnect' : 'connect', () => settle(null))
    socket.on('error', (error) => settle(failureToConnect(name, socket, error)))
    socket.once('close', () => settle(new Failure('upstream-unreachable', `${name} closed the connection`)))
    return socket
  }
}

function failureToConnect(name: string, socket: Socket & { authorizationError?: unknown }, cause: Error): Failure {
  if (cause instanceof Failure) return cause
  // Node notes here what it has against a certificate before it ends the connection for it.
  if (socket.authorizationError) {
    const remedy = 'Only certificates for this name by a known authority are accepted'
    return new Failure('upstream-certificate', `The certificate of ${name}: ${cause.message}. ${remedy}.`, { cause })
  }
  return new Failure('upstream-unreachable', `${name} could not be reached: ${codeOf(cause)}.`, { cause })
}

const codeOf = (error: Error) => ('code' in error ? String(error.code) : error.message)

/** Finds a name's addresses, and lets only public ones be dialled, at every dial anew: exactly those are then dialled. */
function vettingLookup({ resolver }: Upstream, lookups: Limit, operator: boolean): LookupFunction {
  return (name, options, callback) => {
    const find = resolver && !operator ? () => askServers(resolver, name) : () => askSystem(name)
    lookups(find).then(
      (addresses) => {
        const refusal = operator ? undefined : addresses.map(({ address }) => refusalHere(address)).find(Boolean)
        const first = addresses[0]
        if (refusal) callback(new Failure('address-not-public', `${name} can not be reached: ${refusal}.`), '')
        else if (!first) callback(unresolved(name), '')
        else if (options.all) callback(null, addresses)
        else callback(null, first.address, first.family)
      },
      (error: Error) => callback(error, ''),
    )
  }
}

/** Why an address must not be dialled from this machine, whose own are for others to dial, public ones too. */
export function refusalHere(address: string): string | undefined {
  const isOwn = Object.values(networkInterfaces()).some((list) => list?.some((own) => own.address === address))
  return isOwn ? `${address} is an address of the worker's own machine` : refusalOf(address)
}

const unresolved = (name: string, cause?: Error) => {
  const reason: EgressReason = 'name-not-resolved'
  return new Failure(reason, `${name} has no address${cause ? ` (${codeOf(cause)})` : ''}.`, { cause })
}

interface Address {
  address: string
  family: number
}

const askSystem = (name: string) =>
  new Promise<Address[]>((resolve, reject) => {
    systemLookup(name, { all: true, verbatim: true }, (error, addresses) => {
      if (error) reject(unresolved(name, error))
      else resolve(addresses)
    })
  })

const askServers = async (resolver: Resolver, name: string): Promise<Address[]> => {
  const ask = (family: 4 | 6) =>
    new Promise<Address[]>((resolve, reject) => {
      resolver[family === 4 ? 'resolve4' : 'resolve6'](name, (error, addresses) => {
        if (error) reject(error)
        else resolve(addresses.map((address) => ({ address, family })))
      })
    })
  const [v4, v6] = await Promise.allSettled([ask(4), ask(6)])
  const found = [v4, v6].flatMap((answer) => (answer.status === 'fulfilled' ? answer.value : []))
  if (found.length === 0) throw unresolved(name, v4.status === 'rejected' ? (v4.reason as Error) : undefined)
  return found
}

type Limit = <T>(work: () => Promise<T>) => Promise<T>

function limited(most: number): Limit {
  let running = 0
  const waiting: (() => void)[] = []
  return async (work) => {
    if (running >= most) await new Promise<void>((resolve) => waiting.push(resolve))
    running++
    try {
      return await work()
    } finally {
      running--
      waiting.shift()?.()
    }
  }
}
