import { once } from 'node:events'
import { connect as connectHttp2 } from 'node:http2'
import { setTimeout as wait } from 'node:timers/promises'
import { connect as connectTls } from 'node:tls'
import { brotliCompressSync, deflateSync, gzipSync, zstdCompressSync } from 'node:zlib'
import { describe, expect, test } from 'vitest'
import { WebSocket } from 'ws'
import { addressOf, all, key, openWorld } from './testing/world.ts'

const world = openWorld()

describe('answers', () => {
  test.each([
    ['gzip', gzipSync],
    ['deflate', deflateSync],
    ['br', brotliCompressSync],
    ['zstd', zstdCompressSync],
  ])('%s is unpacked and searched', async (encoding, compress) => {
    const body = compress(Buffer.from(`before ${key} after `.repeat(1000)))
    world.upstream.answer('/packed', (_seen, response) => {
      response.writeHead(200, { 'content-encoding': encoding, 'content-length': body.length, etag: key })
      response.end(body)
    })
    const socket = await world.openTls('api.test')
    socket.write('GET /packed HTTP/1.0\r\nHost: api.test\r\nAccept-Encoding: gzip\r\nRange: bytes=0-1\r\n\r\n')
    const [head = '', text = ''] = (await all(socket)).split('\r\n\r\n')
    expect(text).toBe('before *** after '.repeat(1000))
    expect(head).not.toMatch(/content-encoding|content-length/i)
    expect(head).toMatch(/etag: \*\*\*/i)
    expect(world.upstream.requests[0]?.headers).toMatchObject({ 'accept-encoding': 'identity' })
    expect(world.upstream.requests[0]?.headers).not.toHaveProperty('range')
  })

  test('an encoding that nobody knows is not let in', async () => {
    world.upstream.answer('/odd', (_seen, response) =>
      response.writeHead(200, { 'content-encoding': 'rot13' }).end('odd'),
    )
    const socket = await world.openTls('api.test')
    socket.write('GET /odd HTTP/1.1\r\nHost: api.test\r\n\r\n')
    expect(await all(socket)).toMatch(/^HTTP\/1.1 502 .*encoding-unknown/s)
    expect(await world.slot.records()).toMatchObject([{ reason: 'encoding-unknown', status: 502 }])
  })

  test('a slow client holds the host back', async () => {
    let sent = 0
    world.upstream.answer('/endless', (_seen, response) => {
      const chunk = Buffer.alloc(65_536, 'a')
      const more = () => {
        while (!response.destroyed && response.write(chunk)) sent += chunk.length
      }
      response.on('drain', more)
      more()
    })
    const socket = await world.openTls('api.test')
    socket.write('GET /endless HTTP/1.1\r\nHost: api.test\r\n\r\n')
    await once(socket, 'data')
    socket.pause()
    await wait(500)
    const before = sent
    await wait(500)
    expect(sent).toBe(before)
    socket.destroy()
    expect(await world.slot.records()).toMatchObject([{ decision: 'allowed' }])
  })
})

describe('HTTP/2', () => {
  async function session(name: string) {
    const socket = await world.openTls(name, ['h2'])
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
    world.upstream.answer('/echo', (seen, response) => response.end(seen.body + seen.headers.cookie))
    const client = await session('api.test')
    const replies = await Promise.all([
      ask(client, { ':path': '/' }),
      ask(client, { ':path': '/echo', ':method': 'POST' }, 'said'),
    ])
    expect(replies).toMatchObject([
      { status: 200, text: 'hello from api.test' },
      { status: 200, text: 'saidundefined' },
    ])
    expect(world.upstream.requests.map(({ headers }) => headers.authorization)).toEqual([
      `Bearer ${key}`,
      `Bearer ${key}`,
    ])
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
    expect(await world.slot.records()).toMatchObject([{ decision: 'refused', reason, status }])
    expect(world.upstream.requests).toEqual([])
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
    const socket = await world.openTls('plain.test', ['h2'])
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
        connectTls({
          host: addressOf(name),
          port: world.slot.ports.https,
          servername: name,
          ca: world.slot.authority.certificate,
        }),
      ...options,
    })

  test('messages go both ways, with the credential, and its echo does not', async () => {
    const socket = open('api.test')
    await once(socket, 'open')
    expect(world.upstream.requests[0]?.headers.authorization).toBe(`Bearer ${key}`)
    socket.send(`said ${key}`)
    const [data] = await once(socket, 'message')
    expect(String(data)).toBe('said ***')
    socket.close()
    await once(socket, 'close')
    expect(await world.slot.records()).toMatchObject([{ decision: 'allowed', status: 101, credential: true }])
  })

  test('another Host gets none', async () => {
    const socket = open('api.test', { headers: { Host: 'plain.test' } })
    const [, reply] = await once(socket, 'unexpected-response')
    expect(reply.statusCode).toBe(421)
    expect(await world.slot.records()).toMatchObject([{ decision: 'refused', reason: 'sni-host-mismatch' }])
    expect(world.upstream.requests).toEqual([])
  })
})
