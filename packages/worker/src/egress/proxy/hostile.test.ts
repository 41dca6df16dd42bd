import { createSocket } from 'node:dgram'
import { once } from 'node:events'
import { connect as connectHttp2 } from 'node:http2'
import { connect, type Socket } from 'node:net'
import { setTimeout as wait } from 'node:timers/promises'
import { connect as connectTls } from 'node:tls'
import { brotliCompressSync, deflateSync, gzipSync, zstdCompressSync } from 'node:zlib'
import { decode, encode, type RecordType } from 'dns-packet'
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { WebSocket } from 'ws'
import { createTestAuthority, selfSigned, type TestAuthority } from '../../../../../test/fakes/certificates.ts'
import { openUpstream, type Upstream } from '../../../../../test/fakes/upstream.ts'
import { startEgressProcess } from './testing/egress-process.ts'

const key = 'sk-test-0123456789abcdef'
const standIn = 'paws-stand-in-00000001'
const pins = [
  { name: 'api.test', address: '127.0.0.11' },
  { name: 'plain.test', address: '127.0.0.12' },
  { name: 'bad.test', address: '127.0.0.13' },
  { name: 'paths.test', address: '127.0.0.14' },
  { name: 'swap.test', address: '127.0.0.15' },
]
const rules = {
  allow: ['plain.test', 'bad.test', '*.wild.test'],
  credentials: {
    'api.test': { headers: { Authorization: `Bearer ${key}` }, placeholders: [] },
    'paths.test': { headers: { 'x-key': key }, placeholders: [], paths: ['/v1/*'], methods: ['GET', 'POST'] },
    'swap.test': { headers: {}, placeholders: [{ standIn, value: 'real/value "1"' }] },
  },
}

let authority: TestAuthority
let upstream: Upstream
let egress: Awaited<ReturnType<typeof startEgressProcess>>
let slot: Awaited<ReturnType<typeof egress.openSlot>>

beforeAll(async () => {
  authority = await createTestAuthority()
  upstream = await openUpstream()
  upstream.certify('', await authority.issue(['api.test', 'plain.test', 'paths.test', 'swap.test']))
  upstream.certify('bad.test', await selfSigned(['bad.test']))
  egress = await startEgressProcess({
    trusted: [authority.certificate],
    resolve: pins.flatMap(({ name }) => [
      [`${name}:443`, `127.0.0.1:${upstream.port}`],
      [`${name}:80`, `127.0.0.1:${upstream.plainPort}`],
    ]) as [string, string][],
  })
})

let slots = 0
beforeEach(async () => {
  slot = await egress.openSlot(`slot-${slots++}`)
  await slot.allow(rules, pins)
  upstream.forget()
  return async () => slot.close()
})

afterAll(async () => {
  await egress.close()
  await upstream.close()
})

const addressOf = (name: string) => pins.find((pin) => pin.name === name)?.address ?? '127.0.0.99'

async function openPlain(name: string): Promise<Socket> {
  const socket = connect({ host: addressOf(name), port: slot.ports.http })
  await once(socket, 'connect')
  return socket
}

async function openTls(name: string, ALPNProtocols?: string[]): Promise<Socket> {
  const ca = slot.authority.certificate
  const socket = connectTls({ host: addressOf(name), port: slot.ports.https, servername: name, ca, ALPNProtocols })
  await once(socket, 'secureConnect')
  return socket
}

/** Everything that comes until the other side ends it, or nothing more has come for a while. */
async function all(socket: Socket, quietMs = 500): Promise<string> {
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

describe('HTTP/1', () => {
  test.each([
    [
      'CL.TE',
      'POST / HTTP/1.1\r\nHost: plain.test\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n',
    ],
    ['TE twice', 'POST / HTTP/1.1\r\nHost: plain.test\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n'],
    ['two lengths', 'POST / HTTP/1.1\r\nHost: plain.test\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello'],
    ['a space before the colon', 'GET / HTTP/1.1\r\nHost : plain.test\r\n\r\n'],
    ['a folded line', 'GET / HTTP/1.1\r\nHost: plain.test\r\nX: a\r\n b\r\n\r\n'],
    ['NUL in a header', 'GET / HTTP/1.1\r\nHost: plain.test\r\nX: a\0b\r\n\r\n'],
    ['bare LF', 'GET / HTTP/1.1\nHost: plain.test\n\n'],
    ['no HTTP', 'hello\r\n\r\n'],
  ])('%s is malformed', async (_, bytes) => {
    const socket = await openPlain('plain.test')
    socket.write(bytes, 'latin1')
    expect(await all(socket)).toMatch(/^HTTP\/1.1 400 /)
    expect(await slot.records()).toMatchObject([{ decision: 'refused', reason: 'request-malformed', port: 80 }])
    expect(upstream.requests).toEqual([])
  })

  test('a second request behind the first is judged for itself', async () => {
    const socket = await openTls('plain.test')
    socket.write('GET /a HTTP/1.1\r\nHost: plain.test\r\n\r\nGET /b HTTP/1.1\r\nHost: api.test\r\n\r\n')
    const text = await all(socket)
    expect(text).toMatch(/^HTTP\/1.1 200 .*HTTP\/1.1 421 /s)
    const records = (await slot.records(2)).sort((a, b) => (a.status ?? 0) - (b.status ?? 0))
    expect(records).toMatchObject([{ status: 200 }, { reason: 'sni-host-mismatch', host: 'api.test' }])
    expect(upstream.requests.map(({ target }) => target)).toEqual(['/a'])
  })

  test.each([
    ['two hosts', 'GET / HTTP/1.1\r\nHost: plain.test\r\nHost: plain.test\r\n\r\n', 'host-malformed'],
    ['no host', 'GET / HTTP/1.1\r\n\r\n', 'host-malformed'],
    ['userinfo', 'GET / HTTP/1.1\r\nHost: api.test@plain.test\r\n\r\n', 'host-malformed'],
    ['another port', 'GET / HTTP/1.1\r\nHost: plain.test:443\r\n\r\n', 'host-address-mismatch'],
    ['an absolute target', 'GET http://api.test/ HTTP/1.1\r\nHost: plain.test\r\n\r\n', 'host-address-mismatch'],
    ['another scheme', 'GET https://plain.test/ HTTP/1.1\r\nHost: plain.test\r\n\r\n', 'host-address-mismatch'],
    ['CONNECT', 'CONNECT plain.test:443 HTTP/1.1\r\nHost: plain.test\r\n\r\n', 'method-refused'],
    ['h2c', 'GET / HTTP/1.1\r\nHost: plain.test\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\nPRI', 'upgrade-refused'],
    ['an asterisk', 'OPTIONS * HTTP/1.1\r\nHost: plain.test\r\n\r\n', 'request-malformed'],
  ])('%s: %#', async (_, bytes, reason) => {
    const socket = await openPlain('plain.test')
    socket.write(bytes)
    expect(await all(socket)).toContain(`"reason":"${reason}"`)
    expect(await slot.records()).toMatchObject([{ decision: 'refused', reason }])
    expect(upstream.requests).toEqual([])
  })

  test('an absolute target of the right host gets out as a path', async () => {
    const socket = await openPlain('plain.test')
    socket.write('GET http://plain.test/a?b HTTP/1.1\r\nHost: PLAIN.test.\r\nConnection: close\r\n\r\n')
    expect(await all(socket)).toMatch(/^HTTP\/1.1 200 /)
    expect(upstream.requests).toMatchObject([{ target: '/a?b' }])
  })

  test('headers without end are cut off', async () => {
    const socket = await openPlain('plain.test')
    socket.write('GET / HTTP/1.1\r\nHost: plain.test\r\n')
    for (let at = 0; at < 100; at++) socket.write(`X-${at}: ${'a'.repeat(1000)}\r\n`)
    expect(await all(socket)).toMatch(/^HTTP\/1.1 431 /)
    expect(await slot.records()).toMatchObject([{ reason: 'request-malformed', status: 431 }])
  })

  test('Connection can not name the added header away, nor hop-by-hop headers get through', async () => {
    const socket = await openTls('api.test')
    const named =
      'Connection: authorization, x-mine, close\r\nX-Mine: 1\r\nTE: trailers\r\nProxy-Authorization: Basic eA=='
    socket.write(`GET / HTTP/1.1\r\nHost: api.test\r\n${named}\r\nAUTHORIZATION: a\r\nauthorization: b\r\n\r\n`)
    await all(socket)
    const [seen] = upstream.requests
    expect(seen?.rawHeaders.filter((name) => name.toLowerCase() === 'authorization')).toHaveLength(1)
    expect(seen?.headers.authorization).toBe(`Bearer ${key}`)
    for (const name of ['x-mine', 'te', 'proxy-authorization']) expect(seen?.headers).not.toHaveProperty(name)
  })

  test('git signs in by name and password', async () => {
    const socket = await openTls('api.test')
    socket.write(
      'GET /a/b.git/info/refs?service=git-upload-pack HTTP/1.1\r\nHost: api.test\r\nConnection: close\r\n\r\n',
    )
    await all(socket)
    const basic = Buffer.from(`x-access-token:${key}`).toString('base64')
    expect(upstream.requests[0]?.headers.authorization).toBe(`Basic ${basic}`)
  })

  test('a client that leaves breaks off what it asked for', async () => {
    const left = Promise.withResolvers<void>()
    upstream.answer('/slow', (_seen, response) => {
      response.once('close', left.resolve)
      response.write('begun')
    })
    const socket = await openTls('plain.test')
    socket.write('GET /slow HTTP/1.1\r\nHost: plain.test\r\n\r\n')
    await once(socket, 'data')
    socket.destroy()
    await left.promise
    expect(await slot.records()).toMatchObject([{ decision: 'allowed', status: 200, responseBytes: 5 }])
  })

  test('a host that breaks off leaves no doubt', async () => {
    upstream.answer('/half', (_seen, response, request) => {
      response.writeHead(200, { 'content-length': '100' })
      response.write('half')
      setTimeout(() => request.socket.destroy(), 50)
    })
    const socket = await openTls('plain.test')
    socket.write('GET /half HTTP/1.1\r\nHost: plain.test\r\n\r\n')
    const text = await all(socket)
    expect(text).toMatch(/half$/)
    expect(await slot.records()).toMatchObject([{ decision: 'allowed', reason: 'upstream-unreachable', status: 200 }])
  })

  test('a certificate that proves nothing is not accepted', async () => {
    const socket = await openTls('bad.test')
    socket.write('GET / HTTP/1.1\r\nHost: bad.test\r\n\r\n')
    expect(await all(socket)).toMatch(/^HTTP\/1.1 502 .*upstream-certificate/s)
    expect(await slot.records()).toMatchObject([{ decision: 'refused', reason: 'upstream-certificate', status: 502 }])
  })

  test('an upload is not answered by silence when the host can not be reached', async () => {
    const socket = await openTls('bad.test')
    socket.write('POST / HTTP/1.1\r\nHost: bad.test\r\nContent-Length: 1000000\r\n\r\nbegun')
    expect(await all(socket)).toMatch(/^HTTP\/1.1 502 .*connection: close/is)
  })
})

describe('paths and placeholders', () => {
  test.each([
    ['/v1/a', 'GET', key],
    ['/v2/a', 'GET', undefined],
    ['/v1/a', 'DELETE', undefined],
  ])('%s by %s', async (path, method, sent) => {
    const socket = await openTls('paths.test')
    socket.write(`${method} ${path} HTTP/1.1\r\nHost: paths.test\r\nConnection: close\r\n\r\n`)
    await all(socket)
    expect(upstream.requests[0]?.headers['x-key']).toBe(sent)
  })

  test.each(['/v1/../a', '/v1/%2e%2e/a', '/v1/..%2fa', '/v1/..\\a', '/v1//a', '/v1/%0aa', '/v1/..;/a', '/v1/%252e'])(
    '%s is ambiguous',
    async (path) => {
      const socket = await openTls('paths.test')
      socket.write(`GET ${path} HTTP/1.1\r\nHost: paths.test\r\n\r\n`)
      expect(await all(socket)).toMatch(/^HTTP\/1.1 403 .*path-ambiguous/s)
      expect(await slot.records()).toMatchObject([{ reason: 'path-ambiguous' }])
    },
  )

  test('placeholders are swapped in path, headers and body, and come back as nothing', async () => {
    upstream.answer('/echo', (seen, response) => response.end(seen.body))
    const socket = await openTls('swap.test')
    const body = JSON.stringify({ key: standIn })
    const head = `POST /echo?a=${standIn} HTTP/1.1\r\nHost: swap.test\r\nConnection: close\r\nX-Key: ${standIn}\r\n`
    socket.write(`${head}Content-Type: application/json\r\nContent-Length: ${body.length}\r\n\r\n${body}`)
    const text = await all(socket)
    expect(upstream.requests[0]).toMatchObject({
      target: '/echo?a=real%2Fvalue%20%221%22',
      headers: { 'x-key': 'real/value "1"' },
      body: JSON.stringify({ key: 'real/value "1"' }),
    })
    expect(upstream.requests[0]?.headers['content-length']).toBe(String(upstream.requests[0]?.body.length))
    expect(text).toContain('{"key":"***"}')
  })

  test('placeholders in a compressed body are swapped too', async () => {
    const socket = await openTls('swap.test')
    const body = gzipSync(`x ${standIn} y`)
    const head = `POST / HTTP/1.1\r\nHost: swap.test\r\nConnection: close\r\nContent-Encoding: gzip\r\n`
    socket.write(`${head}Content-Length: ${body.length}\r\n\r\n`)
    socket.write(body)
    await all(socket)
    expect(upstream.requests[0]?.body).toBe('x real/value "1" y')
    expect(upstream.requests[0]?.headers).not.toHaveProperty('content-encoding')
    expect(await slot.records()).toMatchObject([{ requestBytes: body.length, credential: true }])
  })
})

describe('answers', () => {
  test.each([
    ['gzip', gzipSync],
    ['deflate', deflateSync],
    ['br', brotliCompressSync],
    ['zstd', zstdCompressSync],
  ])('%s is unpacked and searched', async (encoding, compress) => {
    const body = compress(Buffer.from(`before ${key} after `.repeat(1000)))
    upstream.answer('/packed', (_seen, response) => {
      response.writeHead(200, { 'content-encoding': encoding, 'content-length': body.length, etag: key })
      response.end(body)
    })
    const socket = await openTls('api.test')
    socket.write('GET /packed HTTP/1.0\r\nHost: api.test\r\nAccept-Encoding: gzip\r\nRange: bytes=0-1\r\n\r\n')
    const [head = '', text = ''] = (await all(socket)).split('\r\n\r\n')
    expect(text).toBe('before *** after '.repeat(1000))
    expect(head).not.toMatch(/content-encoding|content-length/i)
    expect(head).toMatch(/etag: \*\*\*/i)
    expect(upstream.requests[0]?.headers).toMatchObject({ 'accept-encoding': 'identity' })
    expect(upstream.requests[0]?.headers).not.toHaveProperty('range')
  })

  test('an encoding that nobody knows is not let in', async () => {
    upstream.answer('/odd', (_seen, response) => response.writeHead(200, { 'content-encoding': 'rot13' }).end('odd'))
    const socket = await openTls('api.test')
    socket.write('GET /odd HTTP/1.1\r\nHost: api.test\r\n\r\n')
    expect(await all(socket)).toMatch(/^HTTP\/1.1 502 .*encoding-unknown/s)
    expect(await slot.records()).toMatchObject([{ reason: 'encoding-unknown', status: 502 }])
  })

  test('a slow client holds the host back', async () => {
    let sent = 0
    upstream.answer('/endless', (_seen, response) => {
      const chunk = Buffer.alloc(65_536, 'a')
      const more = () => {
        while (!response.destroyed && response.write(chunk)) sent += chunk.length
      }
      response.on('drain', more)
      more()
    })
    const socket = await openTls('api.test')
    socket.write('GET /endless HTTP/1.1\r\nHost: api.test\r\n\r\n')
    await once(socket, 'data')
    socket.pause()
    await wait(500)
    const before = sent
    await wait(500)
    expect(sent).toBe(before)
    socket.destroy()
    expect(await slot.records()).toMatchObject([{ decision: 'allowed' }])
  })
})

describe('HTTP/2', () => {
  async function session(name: string) {
    const socket = await openTls(name, ['h2'])
    const client = connectHttp2(`https://${name}`, { createConnection: () => socket })
    client.on('error', () => undefined)
    return client
  }
  async function ask(client: Awaited<ReturnType<typeof session>>, headers: Record<string, string>, body?: string) {
    const stream = client.request(headers, { endStream: body === undefined })
    if (body !== undefined) stream.end(body)
    let text = ''
    stream.setEncoding('utf8').on('data', (chunk: string) => (text += chunk))
    const [answered] = await once(stream, 'response')
    await once(stream, 'end')
    return { status: answered[':status'], text }
  }

  test('requests and bodies get out, with the credential', async () => {
    upstream.answer('/echo', (seen, response) => response.end(seen.body + seen.headers.cookie))
    const client = await session('api.test')
    const replies = await Promise.all([
      ask(client, { ':path': '/' }),
      ask(client, { ':path': '/echo', ':method': 'POST' }, 'said'),
    ])
    expect(replies).toMatchObject([
      { status: 200, text: 'hello from api.test' },
      { status: 200, text: 'saidundefined' },
    ])
    expect(upstream.requests.map(({ headers }) => headers.authorization)).toEqual([`Bearer ${key}`, `Bearer ${key}`])
    client.close()
  })

  test.each([
    ['another authority', { ':authority': 'plain.test' }, 421, 'sni-host-mismatch'],
    ['another host beside it', { ':authority': 'api.test', host: 'plain.test' }, 400, 'host-malformed'],
    ['TRACE', { ':method': 'TRACE' }, 405, 'method-refused'],
  ])('%s', async (_, headers, status, reason) => {
    const client = await session('api.test')
    const reply = await ask(client, { ':path': '/', ...headers })
    expect(reply.status).toBe(status)
    expect(reply.text).toContain(reason)
    expect(await slot.records()).toMatchObject([{ decision: 'refused', reason, status }])
    expect(upstream.requests).toEqual([])
    client.close()
  })

  function frame(type: number, flags: number, stream: number, payload: string) {
    const head = Buffer.alloc(9)
    head.writeUIntBE(payload.length, 0, 3)
    head.writeUInt8(type, 3)
    head.writeUInt8(flags, 4)
    head.writeUInt32BE(stream, 5)
    return Buffer.concat([head, Buffer.from(payload, 'latin1')])
  }

  test('rapid resets end the connection, and no other', async () => {
    const socket = await openTls('plain.test', ['h2'])
    const other = await session('plain.test')
    const gone = once(socket, 'close')
    socket.on('error', () => undefined).resume()
    socket.write('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n')
    socket.write(frame(4, 0, 0, ''))
    for (let at = 0; at < 3000; at++) {
      const headers = frame(1, 5, 2 * at + 1, '\x82\x87\x84\x41\x0aplain.test')
      socket.write(Buffer.concat([headers, frame(3, 0, 2 * at + 1, '\0\0\0\x08')]))
    }
    await gone
    expect(await ask(other, { ':path': '/' })).toMatchObject({ status: 200 })
    other.close()
  })
})

describe('WebSocket', () => {
  const open = (name: string, options: object = {}) =>
    new WebSocket(`wss://${name}/chat`, ['one', 'two'], {
      createConnection: () =>
        connectTls({ host: addressOf(name), port: slot.ports.https, servername: name, ca: slot.authority.certificate }),
      ...options,
    })

  test('messages go both ways, with the credential, and its echo does not', async () => {
    const socket = open('api.test')
    await once(socket, 'open')
    expect(upstream.requests[0]?.headers.authorization).toBe(`Bearer ${key}`)
    socket.send(`said ${key}`)
    const [data] = await once(socket, 'message')
    expect(String(data)).toBe('said ***')
    socket.close()
    await once(socket, 'close')
    expect(await slot.records()).toMatchObject([{ decision: 'allowed', status: 101, credential: true }])
  })

  test('another Host gets none', async () => {
    const socket = open('api.test', { headers: { Host: 'plain.test' } })
    const [, reply] = await once(socket, 'unexpected-response')
    expect(reply.statusCode).toBe(421)
    expect(await slot.records()).toMatchObject([{ decision: 'refused', reason: 'sni-host-mismatch' }])
    expect(upstream.requests).toEqual([])
  })
})

describe('names', () => {
  const ask = async (name: string, type: RecordType = 'A') => {
    const socket = createSocket('udp4')
    socket.send(
      encode({ type: 'query', id: 7, flags: 256, questions: [{ type, name }] }),
      slot.ports['dns-udp'],
      '127.0.0.1',
    )
    const [reply] = await once(socket, 'message')
    socket.close()
    const { answers, flags = 0, id } = decode(reply)
    return { id, code: flags & 15, addresses: answers?.map((answer) => 'data' in answer && answer.data) }
  }

  test('allowed ones have a made-up address, the same each time, and nothing else', async () => {
    const first = await ask('a.wild.test')
    expect(first).toMatchObject({ id: 7, code: 0, addresses: [expect.stringMatching(/^198\.18\./)] })
    expect(await ask('A.Wild.test')).toEqual(first)
    expect(await ask('a.wild.test', 'AAAA')).toMatchObject({ code: 0, addresses: [] })
    expect(await ask('plain.test')).toMatchObject({ addresses: ['127.0.0.12'] })
    expect(egress.said).toContainEqual(expect.objectContaining({ type: 'pinned', name: 'a.wild.test' }))
  })

  test.each(['wild.test', 'other.test', 'plain.test.other.test', 'notplain.test', 'localhost'])(
    '%s does not exist',
    async (name) => {
      expect(await ask(name)).toMatchObject({ code: 3, addresses: [] })
      expect(await slot.records()).toMatchObject([{ reason: 'name-not-allowed', port: 53, host: name }])
    },
  )

  test('a flood of questions and broken ones leave it answering', async () => {
    const socket = createSocket('udp4')
    for (const bytes of ['', '\0', '\0'.repeat(12), '\0\0\u0001\0\0\u0001\0\0\0\0\0\0\u00c0\u000c\0\u0001\0\u0001']) {
      socket.send(Buffer.from(bytes, 'latin1'), slot.ports['dns-udp'], '127.0.0.1')
    }
    expect(await ask('plain.test')).toMatchObject({ code: 0 })
    socket.close()
  })
})

describe('life', () => {
  test('rules that are tightened break what is open, and not the rest', async () => {
    upstream.answer('/open', (_seen, response) => void response.write('open'))
    const [doomed, kept] = [await openTls('plain.test'), await openTls('api.test')]
    for (const [socket, name] of [
      [doomed, 'plain.test'],
      [kept, 'api.test'],
    ] as const) {
      socket.write(`GET /open HTTP/1.1\r\nHost: ${name}\r\n\r\n`)
      await once(socket, 'data')
    }
    const closed = once(doomed, 'close')
    await slot.allow({ ...rules, allow: [] })
    await closed
    expect(await slot.records()).toMatchObject([{ reason: 'rules-changed', host: 'plain.test' }])
    expect(kept.destroyed).toBe(false)
    kept.destroy()
  })

  test('one sandbox can not take the connections of another', async () => {
    const other = await egress.openSlot('other')
    await other.allow(rules, pins)
    const sockets = Array.from({ length: 700 }, () => connect({ host: '127.0.0.12', port: slot.ports.http }))
    for (const socket of sockets) socket.on('error', () => undefined)
    await wait(1000)
    expect(sockets.filter((socket) => !socket.destroyed)).toHaveLength(512)
    expect(await slot.records()).toMatchObject([{ decision: 'refused', reason: 'too-many-connections', port: 80 }])
    const socket = connect({ host: '127.0.0.12', port: other.ports.http })
    socket.write('GET / HTTP/1.1\r\nHost: plain.test\r\nConnection: close\r\n\r\n')
    expect(await all(socket)).toMatch(/^HTTP\/1.1 200 /)
    for (const open of sockets) open.destroy()
    await other.records()
    await other.close()
  })

  test('who has done more than could be kept waits', async () => {
    const socket = await openPlain('plain.test')
    socket.write('GET / HTTP/1.1\r\nHost: api.test\r\n\r\n'.repeat(3000))
    let text = ''
    socket.on('data', (chunk: Buffer) => (text += chunk))
    await wait(1500)
    const answered = () => text.split('HTTP/1.1 421').length - 1
    expect(answered()).toBe(2000)
    const records = await slot.records(3000)
    expect(records).toHaveLength(3000)
    socket.destroy()
  })
})
