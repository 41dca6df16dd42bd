import { once } from 'node:events'
import { setTimeout as sleep } from 'node:timers/promises'
import { describe, expect, test } from 'vitest'
import { WebSocket } from 'ws'
import { drivers } from '../conformance/drivers.ts'
import { converse, openEgressWorld, reasonIn } from '../support/egress.ts'
import { inSandbox } from './support/boxes.ts'

const hosts = ['api.test', 'other.test', 'evil.test']
const key = 'sk-ws-0123456789abcdefghijkl'
const botToken = '123456789:AAH-bot-token'
const credentials = { 'api.test': { headers: { 'x-api-key': key }, placeholders: { BOT_TOKEN: botToken } } }
const handshake = (host: string, ...more: string[]) =>
  [
    'GET /ws HTTP/1.1',
    `Host: ${host}`,
    'Connection: Upgrade',
    'Upgrade: websocket',
    'Sec-WebSocket-Version: 13',
    'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==',
    ...more,
    '',
    '',
  ].join('\r\n')

describe.each(Object.entries(drivers))('%s: WebSockets', { timeout: 30_000 }, (_, driver) => {
  const world = openEgressWorld(driver, { hosts })
  const box = inSandbox(world, { allowOut: ['other.test'], credentials })

  const open = async (host: string, path = '/ws', options: WebSocket.ClientOptions = {}) => {
    const socket = await box().tls(host)
    const client = new WebSocket(`wss://${host}${path}`, { ...options, createConnection: () => socket })
    const messages: string[] = []
    client.on('message', (data: Buffer) => messages.push(data.toString('latin1')))
    client.on('error', () => client.terminate())
    await once(client, 'open')
    return { client, messages }
  }

  test.each(['api.test', 'other.test'])(
    '%s is reached, both ways, with the credential only where it belongs',
    async (host) => {
      const { client, messages } = await open(host)
      client.send('a text')
      client.send(Buffer.from([0, 1, 2, 255]))
      await expect.poll(() => messages).toEqual(['a text', '\0\x01\x02\xff'])
      client.close(4321, 'done')
      expect((await once(client, 'close'))[0]).toBe(4321)
      expect(world.upstream.requests).toMatchObject([{ target: '/ws', headers: { host, upgrade: 'websocket' } }])
      expect(world.upstream.requests[0]?.headers['x-api-key']).toBe(host === 'api.test' ? key : undefined)
      await box().recorded({ decision: 'allowed', host, status: 101 })
    },
  )

  test.each([
    ['another Host', 'api.test', handshake('evil.test'), 421, 'sni-host-mismatch'],
    ['another version', 'api.test', handshake('api.test').replace(': 13', ': 12'), 501, 'upgrade-refused'],
    ['no key', 'api.test', handshake('api.test').replace(/Sec-WebSocket-Key.*\r\n/, ''), 501, 'upgrade-refused'],
    ['two Hosts', 'api.test', handshake('api.test', 'Host: evil.test'), 400, 'host-malformed'],
    ['a method that changes things', 'api.test', handshake('api.test').replace('GET', 'POST'), 501, 'upgrade-refused'],
  ] as const)('%s is refused', async (_, host, bytes, status, reason) => {
    const { replies, closed } = await box().send(host, `${bytes}GET /smuggled HTTP/1.1\r\nHost: ${host}\r\n\r\n`)
    expect(replies.map((reply) => [reply.status, reasonIn(reply)])).toEqual([[status, reason]])
    expect(closed).toBe(true)
    await box().recorded({ decision: 'refused', reason, port: 443 })
    expect(world.upstream.requests).toEqual([])
  })

  test.each([
    ['a request', 'GET /smuggled HTTP/1.1\r\nHost: evil.test\r\n\r\n'],
    ['a frame without its mask', '\x81\x05hello'],
    ['a frame of reserved kind', '\x83\x80aaaa'],
    ['a frame with a reserved bit', '\xc1\x80aaaa'],
    ['a frame of endless length', '\x82\xff\x7f\xff\xff\xff\xff\xff\xff\xffaaaa'],
  ])('%s after 101 goes no further', async (_, bytes) => {
    const received: string[] = []
    world.upstream.webSocket('/recorded', (socket) => socket.on('message', (data) => received.push(String(data))))
    const socket = await box().tls('api.test')
    const { closed } = await converse(
      socket,
      [handshake('api.test').replace('/ws', '/recorded'), bytes],
      Number.POSITIVE_INFINITY,
    )
    expect(closed).toBe(true)
    expect(received).toEqual([])
    expect(world.upstream.requests.map(({ target }) => target)).toEqual(['/recorded'])
    // The same connection serves nobody else, and others still work.
    expect(await box().request({ host: 'api.test' })).toMatchObject({ status: 200 })
  })

  test('what a host answers instead is searched as any answer', async () => {
    // It doesn't take WebSockets there, but answers as to any request.
    world.upstream.decline('/declined', (seen) => `no: ${seen.headers['x-api-key']}`)
    const bytes = handshake('api.test').replace('/ws', '/declined')
    const { replies } = await box().send('api.test', bytes)
    expect(replies).toMatchObject([{ status: 403, body: 'no: ***' }])
    await box().recorded({ decision: 'allowed', path: '/declined', status: 403, credential: true })
  })

  test('no compression is agreed on where messages are searched', async () => {
    for (const [host, agreed] of [
      ['api.test', ''],
      ['other.test', 'permessage-deflate'],
    ] as const) {
      const { client } = await open(host, '/ws', { perMessageDeflate: true })
      const offered = world.upstream.requests.at(-1)?.headers['sec-websocket-extensions']
      if (host === 'api.test') expect([client.extensions, offered]).toEqual([agreed, undefined])
      client.terminate()
    }
  })

  describe('a secret that comes back', () => {
    const cases: Record<string, (socket: WebSocket) => void> = {
      'in one message': (socket) => socket.send(`before ${key} after`),
      'in a binary one': (socket) => socket.send(Buffer.from(`before ${key} after`)),
      'in base64': (socket) => socket.send(btoa(`before ${key} after`)),
      'in fragments of a message': (socket) => {
        for (const part of ['before ', key.slice(0, 7), key.slice(7, 20), key.slice(20)])
          socket.send(part, { fin: false })
        socket.send(' after', { fin: true })
      },
      'in messages one after the other': (socket) => {
        for (const part of [key.slice(0, 9), key.slice(9, 18), key.slice(18)]) socket.send(part)
      },
      'in deltas of JSON': (socket) => {
        for (const byte of key.match(/.{1,4}/g) ?? []) socket.send(JSON.stringify({ type: 'delta', delta: byte }))
      },
      'in the reason of the end': (socket) => socket.close(4000, `because ${key}`),
      'in a ping': (socket) => socket.ping(key),
    }
    test.each(Object.entries(cases))('%s', async (what, send) => {
      world.upstream.webSocket('/echo', (socket) => {
        send(socket)
        socket.send('end')
        setTimeout(() => socket.close(), 500)
      })
      const socket = await box().tls('api.test')
      const client = new WebSocket('wss://api.test/echo', { createConnection: () => socket })
      const heard: string[] = []
      client.on('message', (data: Buffer) => heard.push(data.toString('latin1')))
      client.on('ping', (data: Buffer) => heard.push(data.toString('latin1')))
      client.on('close', (_code, reason) => heard.push(reason.toString('latin1')))
      await once(client, 'close')
      if (what !== 'in the reason of the end') expect(heard).toContain('end')
      const deltas = heard.map((text) => (text.startsWith('{') ? JSON.parse(text).delta : text))
      for (const text of [heard.join(''), deltas.join('')]) {
        expect(text).not.toContain(key)
        expect(text).not.toContain(key.slice(8, -8))
        expect(text).not.toContain(btoa(`before ${key} after`).slice(16, -16))
      }
    })

    test('in a header of the handshake', async () => {
      const socket = await box().tls('api.test')
      const client = new WebSocket('wss://api.test/ws', [key.replaceAll('-', '_')], { createConnection: () => socket })
      client.on('error', () => undefined)
      const [response] = await once(client, 'upgrade')
      client.terminate()
      expect(JSON.stringify(response.rawHeaders)).not.toContain(key)
    })
  })

  test('a placeholder becomes the value on the way there, in text and in pieces, and is masked on the way back', async () => {
    const received: string[] = []
    world.upstream.webSocket('/bot', (socket) => {
      socket.on('message', (data) => {
        received.push(String(data))
        socket.send(data)
      })
    })
    const standIn = String(box().inlay.env.BOT_TOKEN)
    const { client, messages } = await open('api.test', `/bot?t=${standIn}`)
    client.send(`token ${standIn}`)
    client.send(standIn.slice(0, 9), { fin: false })
    client.send(standIn.slice(9), { fin: true })
    await expect.poll(() => messages).toEqual(['token ***', '***'])
    expect(received).toEqual([`token ${botToken}`, botToken])
    expect(decodeURIComponent(String(world.upstream.requests[0]?.target))).toBe(`/bot?t=${botToken}`)
    client.terminate()
    const other = await open('other.test', '/bot')
    other.client.send(standIn)
    await expect.poll(() => other.messages).toEqual([standIn])
    other.client.terminate()
  })

  test('a message too large to be searched ends it, and only it', async () => {
    const { client } = await open('api.test')
    const other = await open('other.test')
    const ended = once(client, 'close')
    const piece = Buffer.alloc(1024 * 1024, 'a')
    for (let sent = 0; sent < 80 && client.readyState === WebSocket.OPEN; sent++) {
      client.send(piece, { fin: false })
      await sleep(1)
    }
    const [code] = await ended
    expect([1006, 1009]).toContain(code)
    other.client.send('still here')
    await expect.poll(() => other.messages, { timeout: 15_000 }).toEqual(['still here'])
    other.client.terminate()
  })
})
