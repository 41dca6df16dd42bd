import { once } from 'node:events'
import { connect, type Socket } from 'node:net'
import { setTimeout as wait } from 'node:timers/promises'
import { connect as connectTls } from 'node:tls'
import { afterAll, beforeAll, beforeEach } from 'vitest'
import { createTestAuthority, selfSigned } from '../../../../../../test/fakes/certificates.ts'
import { openUpstream, type Upstream } from '../../../../../../test/fakes/upstream.ts'
import { startEgressProcess } from './egress-process.ts'

export const key = 'sk-test-0123456789abcdef'
export const standIn = 'paws-stand-in-00000001'
export const pins = [
  { name: 'api.test', address: '127.0.0.11' },
  { name: 'plain.test', address: '127.0.0.12' },
  { name: 'bad.test', address: '127.0.0.13' },
  { name: 'paths.test', address: '127.0.0.14' },
  { name: 'swap.test', address: '127.0.0.15' },
]
export const rules = {
  allow: ['plain.test', 'bad.test', '*.wild.test'],
  credentials: {
    'api.test': { headers: { Authorization: `Bearer ${key}` }, placeholders: [] },
    'paths.test': { headers: { 'x-key': key }, placeholders: [], paths: ['/v1/*'], methods: ['GET', 'POST'] },
    'swap.test': { headers: {}, placeholders: [{ standIn, value: 'real/value "1"' }] },
  },
}

type Egress = Awaited<ReturnType<typeof startEgressProcess>>

export interface World {
  upstream: Upstream
  egress: Egress
  /** Another for each test, with `rules` */
  slot: Awaited<ReturnType<Egress['openSlot']>>
  openPlain(name: string): Promise<Socket>
  openTls(name: string, ALPNProtocols?: string[]): Promise<Socket>
}

/** Hosts of all kinds behind the real egress process, for the tests of a file. */
export function openWorld(): World {
  const world = { openPlain, openTls } as World
  let slots = 0
  beforeAll(async () => {
    const authority = await createTestAuthority()
    world.upstream = await openUpstream()
    world.upstream.certify('', await authority.issue(['api.test', 'plain.test', 'paths.test', 'swap.test']))
    world.upstream.certify('bad.test', await selfSigned(['bad.test']))
    const { port, plainPort } = world.upstream
    world.egress = await startEgressProcess({
      trusted: [authority.certificate],
      resolve: pins.flatMap(({ name }): [string, string][] => [
        [`${name}:443`, `127.0.0.1:${port}`],
        [`${name}:80`, `127.0.0.1:${plainPort}`],
      ]),
    })
  })
  beforeEach(async () => {
    const slot = await world.egress.openSlot(`slot-${slots++}`)
    await slot.allow(rules, pins)
    world.slot = slot
    world.upstream.forget()
    return () => slot.close()
  })
  afterAll(async () => {
    await world.egress.close()
    await world.upstream.close()
  })
  return world

  async function openPlain(name: string): Promise<Socket> {
    const socket = connect({ host: addressOf(name), port: world.slot.ports.http })
    await once(socket, 'connect')
    return socket
  }

  async function openTls(name: string, ALPNProtocols?: string[]): Promise<Socket> {
    const { ports, authority } = world.slot
    const ca = authority.certificate
    const socket = connectTls({ host: addressOf(name), port: ports.https, servername: name, ca, ALPNProtocols })
    await once(socket, 'secureConnect')
    return socket
  }
}

export const addressOf = (name: string) => pins.find((pin) => pin.name === name)?.address ?? '127.0.0.99'

/** Everything that comes until the other side ends it, or nothing more has come for a while. */
export async function all(socket: Socket, quietMs = 500): Promise<string> {
  let text = ''
  socket.on('data', (chunk: Buffer) => (text += chunk.toString('latin1')))
  socket.on('error', () => undefined)
  for (let length = -1; length !== text.length && !socket.closed; ) {
    length = text.length
    await Promise.race([once(socket, 'close').catch(() => undefined), wait(quietMs)])
  }
  socket.destroy()
  return text
}
