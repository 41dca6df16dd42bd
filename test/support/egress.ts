import { randomBytes } from 'node:crypto'
import type { Duplex } from 'node:stream'
import { connect as connectTls, type TLSSocket } from 'node:tls'
import type { EgressReason, EgressRecord, EgressRules } from '@paws/api'
import { decode, encode, type Packet, type RecordType, type StringAnswer } from 'dns-packet'
import { pino } from 'pino'
import { afterAll, beforeAll, beforeEach, expect } from 'vitest'
import { type Egress, openEgress } from '../../packages/worker/src/egress/index.ts'
import type { Driver, Sandbox } from '../../packages/worker/src/sandbox/driver.ts'
import type { Inlay } from '../../packages/worker/src/sandbox/outlet.ts'
import { slotHelperBinary } from '../../packages/worker/src/sandbox/testing/build-program.ts'
import { type DriverUnderTest, diskMB } from '../conformance/drivers.ts'
import { testFolder, testImage } from '../conformance/image.ts'
import { createTestAuthority, type TestAuthority } from '../fakes/certificates.ts'
import { type NameServer, openNameServer } from '../fakes/dns.ts'
import { openUpstream, type Upstream } from '../fakes/upstream.ts'
import { type Dial, startRelay } from './relay.ts'
import { header, parseReplies, type Reply } from './replies.ts'

/** What a test states of the rules; the rest is empty. Every request is recorded unless it says otherwise. */
export type TestRules = Partial<Omit<EgressRules, 'credentials'>> & {
  credentials?: Record<string, Partial<EgressRules['credentials'][string]>>
}

/** Sandboxes with their real way out, and an internet of our own for them. */
export interface EgressWorld {
  /** All of the hosts, allowed ones and others: what must not arrive would arrive here */
  upstream: Upstream
  /** Asked for every name that isn't one of the hosts */
  nameServer: NameServer
  authority: TestAuthority
  outlets: Egress
  driver: Driver
  start(rules?: TestRules): Promise<Box>
  /** Without any rules: what was made ahead */
  startBare(): Promise<Box>
}

interface WorldOptions {
  /** Names that lead to the upstream, on both ports */
  hosts: string[]
  /** Sandboxes that can be started at once */
  ready?: number
}

/** To be called in a describe block: it opens before its tests, and closes after them all that they started. */
export function openEgressWorld(underTest: DriverUnderTest, { hosts, ready = 2 }: WorldOptions): EgressWorld {
  const world = {} as EgressWorld
  const closers: (() => Promise<unknown>)[] = []
  const opened = <T extends { close(): Promise<unknown> }>(thing: T): T => {
    closers.push(() => thing.close())
    return thing
  }
  beforeAll(async () => {
    world.authority = await createTestAuthority()
    world.upstream = opened(await openUpstream())
    world.upstream.certify('', await world.authority.issue(hosts))
    world.nameServer = opened(await openNameServer())
    const { upstream } = world
    const outlets = opened(
      await openEgress({
        slotHelper: await slotHelperBinary(),
        resolve: hosts.flatMap((host): [string, string][] => [
          [`${host}:443`, `127.0.0.1:${upstream.port}`],
          [`${host}:80`, `127.0.0.1:${upstream.plainPort}`],
        ]),
        nameServers: [world.nameServer.address],
        extraCa: [world.authority.certificate],
        log: pino({ level: 'warn' }),
      }),
    )
    world.outlets = outlets
    const instance = `test-${randomBytes(4).toString('hex')}`
    world.driver = opened(await underTest.open({ dataDir: testFolder(), instance, ready, outlets }))
    const imageDir = await testImage()
    world.startBare = async () => {
      const usual = { imageDir, vcpus: 1, memoryMB: 512, diskMB, hostname: 'box' }
      const sandbox = await world.driver.start({ id: crypto.randomUUID(), ...usual })
      closers.push(() => sandbox.stop({ graceMs: 0 }))
      return openBox(sandbox)
    }
    world.start = async (rules) => {
      const box = await world.startBare()
      await box.allow(rules)
      return box
    }
  }, 120_000)
  beforeEach(() => {
    world.upstream?.forget()
  })
  afterAll(async () => {
    for (const close of closers.reverse()) await close()
  }, 60_000)
  return world
}

export interface RequestOptions {
  /** The name whose address is dialled, and that the handshake names */
  host: string
  /** Default: true */
  secure?: boolean
  method?: string
  path?: string
  /** Host is added unless it is here */
  headers?: [name: string, value: string][]
  body?: string
}

export interface OpenOptions {
  /** Default: what the resolver says of the host */
  address?: string
  /** Default: 443 */
  port?: number
  /** Of the handshake; false: none. Default: the host */
  servername?: string | false
  /** Default: that of the sandbox */
  ca?: string
  alpn?: string[]
}

/** A sandbox, and ways to speak from inside of it. */
export interface Box {
  sandbox: Sandbox
  inlay: Inlay
  /** What was recorded so far, and what comes */
  records: EgressRecord[]
  dial: Dial
  allow(rules?: TestRules): Promise<void>
  /** Asks a resolver; any address is one */
  ask(name: string, type?: RecordType, resolver?: string): Promise<Packet>
  /** The address that a name has inside */
  address(name: string): Promise<string>
  tls(host: string, options?: OpenOptions): Promise<TLSSocket>
  /** Sends bytes as they are, Latin-1, over TLS unless the port is 80, and reads so many answers, or until it is closed */
  send(host: string, bytes: string | string[], options?: OpenOptions & { answers?: number }): Promise<Talk>
  /** One well-formed request on a connection of its own */
  request(options: RequestOptions): Promise<Reply>
  /** Waits until this has been recorded */
  recorded(record: Partial<EgressRecord> & { reason?: EgressReason }): Promise<void>
}

export interface Talk {
  replies: Reply[]
  /** What came that is no whole answer */
  rest: string
  /** The other side closed it, whether by an end or a reset */
  closed: boolean
}

async function openBox(sandbox: Sandbox): Promise<Box> {
  const dial = await startRelay(sandbox)
  const addresses = new Map<string, string>()
  const box: Box = {
    sandbox,
    dial,
    inlay: { certificate: '', env: {} },
    records: [],
    async allow(rules) {
      box.inlay = await sandbox.outlet.allow(whole(rules), async (records) => {
        box.records.push(...records)
      })
    },
    async ask(name, type = 'A', resolver = '127.0.0.1') {
      const socket = await dial(resolver, 53, 'udp')
      const questions = [{ name, type }]
      const query = encode({ type: 'query', id: randomBytes(2).readUInt16BE(), flags: 0x100, questions })
      socket.write(Buffer.concat([Buffer.from([query.length >> 8, query.length & 255]), query]))
      const [datagram] = await readDatagrams(socket, 1)
      if (!datagram) throw new Error(`No answer for ${name}`)
      return decode(datagram)
    },
    async address(name) {
      const known = addresses.get(name)
      if (known) return known
      const { answers = [] } = await box.ask(name)
      const first = answers.find((answer): answer is StringAnswer => answer.type === 'A')
      if (!first) throw new Error(`${name} has no address inside`)
      const address = first.data
      addresses.set(name, address)
      return address
    },
    async tls(host, { address, port = 443, servername = host, ca = box.inlay.certificate, alpn } = {}) {
      const socket = await dial(address ?? (await box.address(host)), port)
      const named = servername === false ? {} : { servername }
      // Not naming a host, a client can't check one either.
      const unnamed = servername === false ? { checkServerIdentity: () => undefined } : {}
      return shakeHands(connectTls({ socket, ca, ALPNProtocols: alpn, ...named, ...unnamed }))
    },
    async send(host, bytes, { answers = Number.POSITIVE_INFINITY, ...options } = {}) {
      const { port = 443, address } = options
      const plain = async () => dial(address ?? (await box.address(host)), port)
      const socket = port === 443 ? await box.tls(host, options) : await plain()
      return converse(socket, [bytes].flat(), answers)
    },
    async request({ host, secure = true, method = 'GET', path = '/', headers = [], body = '' }) {
      const named = headers.some(([name]) => name.toLowerCase() === 'host')
      const lines = [...(named ? [] : [['Host', host] as const]), ...headers]
      if (body) lines.push(['Content-Length', String(body.length)])
      const head = [`${method} ${path} HTTP/1.1`, ...lines.map(([name, value]) => `${name}: ${value}`)]
      const bytes = `${head.join('\r\n')}\r\n\r\n${body}`
      const { replies, rest } = await box.send(host, bytes, { port: secure ? 443 : 80, answers: 1 })
      const reply = replies.find(({ status }) => status >= 200)
      if (!reply) throw new Error(`${method} ${host}${path} got no answer, but: ${JSON.stringify(rest.slice(0, 500))}`)
      return reply
    },
    recorded: (record) =>
      expect.poll(() => box.records, { timeout: 5000, interval: 10 }).toContainEqual(expect.objectContaining(record)),
  }
  return box
}

export function whole({ allowOut = [], credentials = {}, auditLog = true }: TestRules = {}): EgressRules {
  const filled = Object.entries(credentials).map(([host, credential]) => [
    host,
    { headers: {}, placeholders: {}, ...credential },
  ])
  return { allowOut, credentials: Object.fromEntries(filled), auditLog }
}

function shakeHands(socket: TLSSocket): Promise<TLSSocket> {
  return new Promise((resolve, reject) => {
    socket.once('secureConnect', () => resolve(socket))
    socket.once('close', () => reject(new Error('Closed before the handshake was over')))
    socket.on('error', (error) => {
      reject(error)
      socket.destroy()
    })
  })
}

/** Final answers are counted, not those like 103. Ten seconds of silence end it. */
export function converse(socket: Duplex, pieces: string[], answers: number): Promise<Talk> {
  return new Promise((resolve, reject) => {
    let text = ''
    const finish = (closed: boolean) => {
      clearTimeout(timer)
      try {
        resolve({ ...parseReplies(text, { ended: closed }), closed })
      } catch (error) {
        reject(error)
      } finally {
        socket.destroy()
      }
    }
    const timer = setTimeout(finish, 10_000, false)
    socket.on('error', () => socket.destroy())
    socket.on('data', (chunk: Buffer) => {
      text += chunk.toString('latin1')
      timer.refresh()
      if (answers < Number.POSITIVE_INFINITY && count(text) >= answers) finish(false)
    })
    socket.once('end', () => finish(true))
    socket.once('close', () => finish(true))
    for (const piece of pieces) socket.write(Buffer.from(piece, 'latin1'))
  })
}

const count = (text: string) => parseReplies(text).replies.filter(({ status }) => status >= 200).length

/** Reads what the relay sends for datagrams; fewer than asked for when nothing comes for two seconds. */
export function readDatagrams(socket: Duplex, wanted: number): Promise<Buffer[]> {
  return new Promise((resolve) => {
    const datagrams: Buffer[] = []
    let received = Buffer.alloc(0)
    const finish = () => {
      clearTimeout(timer)
      socket.destroy()
      resolve(datagrams)
    }
    const timer = setTimeout(finish, 2000)
    socket.once('close', finish)
    socket.on('data', (chunk: Buffer) => {
      received = Buffer.concat([received, chunk])
      while (received.length >= 2 && received.length >= 2 + received.readUInt16BE()) {
        const end = 2 + received.readUInt16BE()
        datagrams.push(Buffer.from(received.subarray(2, end)))
        received = received.subarray(end)
      }
      if (datagrams.length >= wanted) finish()
    })
  })
}

/** The reason that a refusal over HTTP states. */
export function reasonIn(reply: Reply): string {
  if (!header(reply, 'content-type')?.includes('json')) return `not JSON: ${reply.body.slice(0, 200)}`
  return (JSON.parse(reply.body) as { error: { reason: string } }).error.reason
}
