import { Resolver } from 'node:dns'
import type { LookupFunction } from 'node:net'
import { Client, Pool } from 'undici'
import { answerParent } from './children.ts'

/* The client of bench/egress.ts: undici on verified TLS, with HTTP/1.1 and connections that are kept. */

export interface Way {
  /** Certificate of the only authority that is trusted, PEM */
  ca: string
  /** Dialled whatever the name; without it the sandbox's resolver is asked */
  address?: string
  port: number
}

export interface ClientCommands {
  /** Requests a second, so many at a time, for so long */
  rate(way: Way, host: string, connections: number, durationMs: number): number
  /** Milliseconds of each of so many requests, one after another */
  times(way: Way, host: string, count: number): number[]
  /** Megabytes a second of a body of so many bytes */
  download(way: Way, host: string, bytes: number): number
  /** Milliseconds of a first request, the name asked for and the connection made */
  first(way: Way, host: string): number
}

const headers = { authorization: 'Bearer what the client has', accept: 'application/json' }

function options({ ca, address }: Way) {
  return { connect: { ca, lookup: address ? fixed(address) : askSandbox }, pipelining: 1, allowH2: false }
}

const fixed =
  (address: string): LookupFunction =>
  (_name, { all }, callback) =>
    all ? callback(null, [{ address, family: 4 }]) : callback(null, address, 4)

const askSandbox: LookupFunction = (name, { all }, callback) => {
  const resolver = new Resolver()
  resolver.setServers(['127.0.0.1'])
  resolver.resolve4(name, (error, [address = ''] = []) => {
    if (error || !all) callback(error, address, 4)
    else callback(null, [{ address, family: 4 }])
  })
}

const origin = (host: string, way: Way) => `https://${host}:${way.port}`

async function get(client: Client | Pool, path = '/v1/messages'): Promise<void> {
  const { statusCode, body } = await client.request({ method: 'GET', path, headers })
  const text = await body.text()
  if (statusCode !== 200) throw new Error(`${statusCode} ${text}`)
}

answerParent<ClientCommands>({
  async rate(way, host, connections, durationMs) {
    const pool = new Pool(origin(host, way), { ...options(way), connections })
    let done = 0
    let end = performance.now() + 500
    const lane = async () => {
      while (performance.now() < end) {
        await get(pool)
        done++
      }
    }
    const lanes = () => Promise.all(Array.from({ length: connections }, lane))
    // Connections are made and code is warm before it counts.
    await lanes()
    done = 0
    const began = performance.now()
    end = began + durationMs
    await lanes()
    const rate = (done * 1000) / (performance.now() - began)
    await pool.close()
    return rate
  },
  async times(way, host, count) {
    const client = new Client(origin(host, way), options(way))
    const times: number[] = []
    for (let left = count + 200; left > 0; left--) {
      const began = performance.now()
      await get(client)
      if (left <= count) times.push(performance.now() - began)
    }
    await client.close()
    return times
  },
  async download(way, host, bytes) {
    const client = new Client(origin(host, way), options(way))
    await get(client)
    const began = performance.now()
    const { body } = await client.request({ method: 'GET', path: `/bytes/${bytes}`, headers })
    let got = 0
    for await (const chunk of body) got += (chunk as Buffer).length
    const rate = got / 1e6 / ((performance.now() - began) / 1000)
    if (got !== bytes) throw new Error(`Of ${bytes} bytes ${got} came`)
    await client.close()
    return rate
  },
  async first(way, host) {
    const client = new Client(origin(host, way), options(way))
    const began = performance.now()
    await get(client)
    const took = performance.now() - began
    await client.close()
    return took
  },
})
