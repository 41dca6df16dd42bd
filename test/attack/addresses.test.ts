import { networkInterfaces } from 'node:os'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { drivers } from '../conformance/drivers.ts'
import { openUpstream, type Upstream } from '../fakes/upstream.ts'
import { openEgressWorld, reasonIn } from '../support/egress.ts'
import { inSandbox } from './support/boxes.ts'

const hosts = ['allowed.test', 'second.test']

/** What an allowed name may lead to and must not be reached, all by way of a real name server. */
const forbidden = {
  loopback: ['127.0.0.1', '127.255.255.254', '::1'],
  unspecified: ['0.0.0.0', '0.1.2.3', '::'],
  private: ['10.0.0.1', '172.16.0.1', '172.31.255.255', '192.168.1.1', 'fd00::1', 'fc00::1'],
  'of carriers': ['100.64.0.1', '100.127.255.254'],
  'link-local': ['169.254.0.1', 'fe80::1'],
  multicast: ['224.0.0.1', '239.255.255.250', 'ff02::1'],
  broadcast: ['255.255.255.255'],
  reserved: ['192.0.0.1', '192.0.2.1', '198.51.100.1', '203.0.113.1', '240.0.0.1', '2001:db8::1', '100::1'],
  'of benchmarks, where our own synthetic ones are': ['198.18.0.1', '198.19.255.255'],
  'of clouds’ metadata': [
    '169.254.169.254', // AWS, GCP, Azure, DigitalOcean, Oracle, Hetzner
    '169.254.170.2', // AWS, of containers
    'fd00:ec2::254', // AWS
    'fd20:ce::254', // GCP
    '168.63.129.16', // Azure's wire server, public by its range
    '100.100.100.200', // Alibaba
    '192.0.0.192', // Oracle, before
  ],
  'IPv4 inside of IPv6': [
    '::ffff:127.0.0.1',
    '::ffff:169.254.169.254',
    '::ffff:0:127.0.0.1',
    '::127.0.0.1',
    '64:ff9b::127.0.0.1',
    '64:ff9b::a9fe:a9fe',
    '64:ff9b:1::7f00:1',
    '2002:7f00:1::',
    '2002:a9fe:a9fe::1',
    '2001:0:7f00:1::',
  ],
  'of this machine': Object.values(networkInterfaces())
    .flatMap((list) => list ?? [])
    .map(({ address }) => address),
}

describe.each(Object.entries(drivers))('%s: addresses', { timeout: 30_000 }, (_, driver) => {
  // All that resolve by the name server; what isn't listed there has no address.
  const world = openEgressWorld(driver, { hosts })
  const box = inSandbox(world, { allowOut: [...hosts, '*.far.test', 'alias.test', 'rebinding.test', 'mixed.test'] })

  /** Stands where a vetted name must never lead: with root's right to its port, what arrives there is seen. */
  let inner: Upstream
  const innerAddress = `127.${process.pid % 250}.77.${1 + Math.floor(Math.random() * 250)}`
  const isRoot = process.getuid?.() === 0
  beforeAll(async () => {
    inner = await openUpstream({ address: innerAddress, port: isRoot ? 443 : 0 })
    inner.certify('', await world.authority.issue(['rebinding.test', 'mixed.test', 'alias.test', '*.far.test']))
  })
  afterAll(() => inner.close())

  const refusal = async (host: string, secure = true) => {
    const reply = await box().request({ host, secure })
    return [reply.status, reasonIn(reply)]
  }

  test('a name that leads to what the operator has set is reached', async () => {
    expect(await box().request({ host: 'allowed.test' })).toMatchObject({
      status: 200,
      body: 'hello from allowed.test',
    })
  })

  let count = 0
  test.each(Object.entries(forbidden))('%s: an allowed name that leads there is refused', async (_, addresses) => {
    for (const address of addresses) {
      const host = `n${count++}.far.test`
      world.nameServer.set(host, [address])
      expect([address, ...(await refusal(host))]).toEqual([address, 403, 'address-not-public'])
      await box().recorded({ decision: 'refused', reason: 'address-not-public', host, port: 443 })
    }
    const plain = `n${count++}.far.test`
    world.nameServer.set(plain, [addresses[0] ?? ''])
    expect(await refusal(plain, false)).toEqual([403, 'address-not-public'])
    await box().recorded({ decision: 'refused', reason: 'address-not-public', host: plain, port: 80 })
  })

  test('what listens there hears nothing', async () => {
    world.nameServer.set('inner.far.test', [innerAddress])
    expect(await refusal('inner.far.test')).toEqual([403, 'address-not-public'])
    expect(inner.connections).toBe(0)
  })

  test('an alias of a name that isn’t allowed leads where that leads, and no further', async () => {
    world.nameServer.set('alias.test', { alias: 'internal.test' })
    world.nameServer.set('internal.test', [innerAddress])
    expect(await refusal('alias.test')).toEqual([403, 'address-not-public'])
    world.nameServer.set('alias.test', { alias: 'localhost' })
    world.nameServer.set('localhost', [innerAddress])
    expect(await refusal('alias.test')).toEqual([403, 'address-not-public'])
    expect(inner.connections).toBe(0)
  })

  // Once of a test network, and nobody's since: public by its form, and no machine answers there.
  const somewherePublic = '3ffe::1'

  test('one private address among public ones is not dialled', async () => {
    world.nameServer.set('mixed.test', [somewherePublic, innerAddress])
    await refusal('mixed.test')
    world.nameServer.set('mixed.test', [innerAddress, somewherePublic])
    await refusal('mixed.test')
    world.nameServer.set('mixed.test', [somewherePublic, `::ffff:${innerAddress}`])
    expect(await refusal('mixed.test')).toEqual([403, 'address-not-public'])
    world.nameServer.set('mixed.test', [innerAddress, '::1'])
    expect(await refusal('mixed.test')).toEqual([403, 'address-not-public'])
    expect(inner.connections).toBe(0)
  })

  test('a name that is public at the first look and private at the second is refused at the second', async () => {
    world.nameServer.set('rebinding.test', [somewherePublic], [innerAddress])
    const [, first] = await refusal('rebinding.test')
    expect(first).not.toBe('address-not-public')
    expect(await refusal('rebinding.test')).toEqual([403, 'address-not-public'])
    await box().recorded({ decision: 'refused', reason: 'address-not-public', host: 'rebinding.test' })
    expect(inner.connections).toBe(0)
  })

  test('the address that was vetted is the one that is dialled: no second look lies between', async () => {
    for (const looks of [1, 2, 3]) {
      const host = `between${looks}.far.test`
      world.nameServer.set(host, ...Array.from({ length: looks }, () => [somewherePublic]), [innerAddress])
      for (let request = 0; request < 3; request++) await refusal(host)
      expect(inner.connections).toBe(0)
    }
  })

  test('a name that leads nowhere is said to', async () => {
    expect(await refusal('nowhere.far.test')).toEqual([502, 'name-not-resolved'])
    await box().recorded({ reason: 'name-not-resolved', host: 'nowhere.far.test' })
  })

  describe('dialled without asking for a name', () => {
    test.each([
      ['a public address', '203.1.113.1'],
      ['a public address of IPv6', '2606:4700:4700::1111'],
      ['the metadata service', '169.254.169.254'],
      ['loopback', '127.0.0.1'],
      ['the host', '192.168.0.1'],
      ['a synthetic address that no name has', '198.19.255.250'],
      ['a mapped synthetic address', '::ffff:198.19.255.250'],
    ])('%s is refused with an allowed SNI and Host', async (_, address) => {
      const before = box().records.length
      await expect(box().tls('allowed.test', { address })).rejects.toThrow()
      await expect
        .poll(() => box().records.slice(before))
        .toContainEqual(expect.objectContaining({ decision: 'refused', reason: 'address-not-pinned', port: 443 }))
      const plain = await box().send('allowed.test', 'GET / HTTP/1.1\r\nHost: allowed.test\r\n\r\n', {
        port: 80,
        address,
        answers: 1,
      })
      expect(plain.replies.map(reasonIn)).toEqual(['address-not-pinned'])
      await expect
        .poll(() => box().records.slice(before))
        .toContainEqual(expect.objectContaining({ decision: 'refused', reason: 'address-not-pinned', port: 80 }))
      expect(world.upstream.requests).toEqual([])
    })

    test.each([
      '2130706433',
      '0x7f000001',
      '0x7f.1',
      '0177.0.0.1',
      '017700000001',
      '127.1',
      '127.0.0.1',
      '[::1]',
      '::1',
      '1.1.1.1',
      '[::ffff:7f00:1]',
      '0',
      '198.18.0.1',
    ])('%s is no Host', async (host) => {
      for (const secure of [true, false]) {
        const reply = await box().request({ host: 'allowed.test', secure, headers: [['Host', host]] })
        expect([reply.status, reasonIn(reply)]).toEqual([
          expect.toBeOneOf([400, 421]),
          expect.toBeOneOf(['host-malformed', secure ? 'sni-host-mismatch' : 'host-address-mismatch']),
        ])
        await box().recorded({ decision: 'refused', reason: reasonIn(reply) as never, port: secure ? 443 : 80 })
      }
      if (!host.includes(':')) {
        expect((await box().ask(host)).answers).toEqual([])
        await box().recorded({ decision: 'refused', reason: 'name-not-allowed', port: 53, host })
      }
      expect(world.upstream.requests).toEqual([])
    })
  })

  test('the address of one allowed name is not that of another', async () => {
    const address = await box().address('second.test')
    await expect(box().tls('allowed.test', { address })).rejects.toThrow()
    await box().recorded({ decision: 'refused', reason: 'sni-address-mismatch', port: 443, host: 'allowed.test' })
    const reply = await box().send('second.test', 'GET / HTTP/1.1\r\nHost: allowed.test\r\n\r\n', {
      port: 80,
      answers: 1,
    })
    expect(reply.replies.map(reasonIn)).toEqual(['host-address-mismatch'])
    expect(world.upstream.requests).toEqual([])
  })

  test('what listens in another sandbox, or on the host, is not there', async () => {
    const other = await world.start()
    const serve = `import socket
s = socket.create_server(("0.0.0.0", 8080)); print("ready", flush=True)
while True: s.accept()[0].sendall(b"reached")`
    const server = other.sandbox.exec({ argv: ['python3', '-c', serve], env: {}, cwd: '/' })
    server.exit.catch(() => undefined) // It ends with its sandbox
    await server.stdout[Symbol.asyncIterator]().next()
    await expect(other.dial('127.0.0.1', 8080)).resolves.toBeDefined()
    for (const [address, port] of [
      ['127.0.0.1', 8080],
      ['198.18.0.1', 8080],
      ['127.0.0.1', world.upstream.port],
      ['127.0.0.1', world.upstream.plainPort],
      [innerAddress, inner.plainPort],
    ] as const) {
      await expect(box().dial(address, port)).rejects.toThrow('errno 111')
    }
    expect(inner.connections).toBe(0)
  })
})
