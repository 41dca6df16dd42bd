import { once } from 'node:events'
import { createServer, type IncomingMessage, type Server } from 'node:http'
import { type AddressInfo, connect, type Socket } from 'node:net'
import { afterEach, expect, test } from 'vitest'
import { WebSocket, WebSocketServer } from 'ws'
import { compilePlaceholders, compileSecrets } from './scrub/index.ts'
import { asksForWebSocket, relayWebSocket } from './websocket.ts'

const secret = 'sk-live-0123456789abcdef'
const closers: (() => void)[] = []
afterEach(() => {
  for (const close of closers.splice(0)) close()
})

interface Relayed {
  client: WebSocket
  /** The host's side of it, and the request as it came to the host */
  host: WebSocket
  request: IncomingMessage
  ended: Promise<{ requestBytes: number; responseBytes: number }>
  breakOff(): void
}

interface Options {
  secrets?: string[]
  placeholders?: { standIn: string; value: string }[]
  protocols?: string[]
  target?: string
  headers?: string[]
  /** Thrown when the host gives another answer */
  fault?: Error
}

async function listen(server: Server): Promise<number> {
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  closers.push(() => server.close().closeAllConnections())
  return (server.address() as AddressInfo).port
}

/** Asks through a relay that stands before this host; what it told of the outcome comes in `told`. */
async function ask(
  hostPort: number,
  { secrets, placeholders, protocols = [], target = '/chat', headers = [], fault }: Options,
) {
  const told: string[] = []
  const done = Promise.withResolvers<{ requestBytes: number; responseBytes: number }>()
  let breakOff = () => undefined as unknown
  const proxy = createServer().on('upgrade', (request: IncomingMessage, socket: Socket, head: Buffer) => {
    expect(asksForWebSocket(request)).toBe(true)
    socket.on('error', () => undefined)
    const upstream = connect(hostPort, '127.0.0.1')
    upstream.once('connect', () => {
      breakOff = relayWebSocket({
        ...{ request, socket, head, upstream, target },
        host: 'chat.test',
        headers: [
          ...request.rawHeaders.filter((_, at, all) => !/^(host|connection|upgrade)$/i.test(all[at - (at % 2)] ?? '')),
          ...headers,
        ],
        secrets: secrets && compileSecrets(secrets),
        placeholders: placeholders && compilePlaceholders(placeholders),
        held: { bytes: 0 },
        declined: (answer) => {
          if (fault) throw fault
          told.push(`declined ${answer.statusCode}`)
          socket.end('HTTP/1.1 403 No\r\ncontent-length: 0\r\n\r\n')
        },
        failed: (error) => {
          told.push(`failed ${error.message}`)
          socket.destroy()
        },
        ended: (sizes) => {
          told.push('ended')
          done.resolve(sizes)
        },
      })
    })
  })
  const client = new WebSocket(`ws://127.0.0.1:${await listen(proxy)}${target}`, protocols)
  closers.push(() => client.terminate())
  return { client, told, ended: done.promise, breakOff: () => breakOff() }
}

async function relay(options: Options = {}): Promise<Relayed> {
  const server = createServer()
  const hosts = new WebSocketServer({ server, handleProtocols: (names) => [...names].at(-1) ?? false })
  hosts.on('headers', (lines) =>
    lines.push(`x-request-id: 7`, `x-echo: ${secret}`, 'set-cookie: a=1', 'set-cookie: b=2'),
  )
  const connected = once(hosts, 'connection')
  const { client, ended, breakOff } = await ask(await listen(server), options)
  const [[host, request]] = await Promise.all([connected, once(client, 'open')])
  return { client, host, request, ended, breakOff }
}

/** The next so many messages. */
async function messages(from: WebSocket, count: number): Promise<string[]> {
  const seen: string[] = []
  const { promise, resolve } = Promise.withResolvers<void>()
  from.on('message', (data, binary) => {
    seen.push(`${binary ? 'binary' : 'text'} ${data}`)
    if (seen.length === count) resolve()
  })
  await promise
  return seen
}

test.each([undefined, [`Bearer ${secret}`]])(
  'messages, pings and sizes go both ways, with secrets %j',
  async (secrets) => {
    const { client, host, ended } = await relay({ secrets })
    const atHost = messages(host, 2)
    const atClient = messages(client, 2)
    client.send('up')
    client.send(Buffer.from('bin'))
    host.send('down')
    host.send(Buffer.from('bytes'))
    expect(await atHost).toEqual(['text up', 'binary bin'])
    expect(await atClient).toEqual(['text down', 'binary bytes'])
    const pinged = once(host, 'pong')
    host.ping('are you there?')
    expect(String((await pinged)[0])).toBe('are you there?')
    client.close()
    expect(await ended).toEqual({ requestBytes: 5, responseBytes: 9 })
  },
)

test('path, headers and protocol reach the host as they were given, and its answer the client', async () => {
  const target = '/a/../b//c?x=%2e|'
  const headers = [
    'Authorization',
    'Bearer real',
    'X-Two',
    '1',
    'x-two',
    '2',
    'Sec-WebSocket-Extensions',
    'permessage-deflate',
  ]
  const { client, request } = await relay({ target, headers, protocols: ['one', 'two'], secrets: [secret] })
  expect(request.url).toBe(target)
  expect(request.headers).toMatchObject({ host: 'chat.test', authorization: 'Bearer real', 'x-two': '1, 2' })
  expect(request.headers).not.toHaveProperty('sec-websocket-extensions')
  expect(client.protocol).toBe('two')
})

test('headers of the answer are handed on without secrets', async () => {
  const server = createServer()
  new WebSocketServer({ server }).on('headers', (lines) =>
    lines.push('x-request-id: 7', `x-echo: ${secret}`, 'set-cookie: a=1', 'set-cookie: b=2'),
  )
  const { client } = await ask(await listen(server), { secrets: [secret] })
  const [answer] = (await once(client, 'upgrade')) as [IncomingMessage]
  expect(answer.headers).toMatchObject({ 'x-request-id': '7', 'x-echo': '***', 'set-cookie': ['a=1', 'b=2'] })
})

test('a protocol with a placeholder in it goes out with the value, and comes back as it was asked for', async () => {
  const placeholders = [{ standIn: 'paws-standin', value: 'real-value' }]
  const { client, request } = await relay({ protocols: ['v1', 'key.paws-standin'], placeholders })
  // The caller swaps what stands in headers.
  expect(request.headers['sec-websocket-protocol']).toBe('v1,key.paws-standin')
  expect(client.protocol).toBe('key.paws-standin')
})

test('a secret is taken out of messages, their fragments, several of them, pings and the reason of the end', async () => {
  const { client, host } = await relay({ secrets: [secret] })
  const seen = messages(client, 7)
  host.send(`your key is ${secret}`)
  host.send(secret.slice(0, 10), { fin: false })
  host.send(secret.slice(10), { fin: true })
  host.send(JSON.stringify({ delta: { text: secret.slice(0, 3) } }))
  host.send(JSON.stringify({ ping: 1 }))
  host.send(JSON.stringify({ delta: { text: secret.slice(3) } }))
  host.send(Buffer.from(Buffer.from(`a:${secret}`).toString('base64')))
  const pinged = once(client, 'ping')
  host.ping(secret)
  host.send(secret.slice(0, 5))
  host.close(4001, `bad key ${secret}`)
  const [code, reason] = await once(client, 'close')
  expect([code, String(reason)]).toEqual([4001, 'bad key ***'])
  expect(String((await pinged)[0])).toBe('***')
  const [first, second, ...rest] = await seen
  expect([first, second]).toEqual(['text your key is ***', 'text ***'])
  expect(rest.slice(0, 3)).toEqual(['text {"delta":{"text":"***"}}', 'text {"ping":1}', 'text {"delta":{"text":""}}'])
  expect(rest[3]).toMatch(/^binary YTp?\w?\*\*\*\w?=*$/)
  expect(rest[4]).toBe(`text ${secret.slice(0, 5)}`)
})

test('placeholders become values on their way to the host', async () => {
  const { client, host } = await relay({ placeholders: [{ standIn: 'paws-abc123', value: 'real"value\u00e4' }] })
  const seen = messages(host, 2)
  client.send('key paws-abc123, paws-abc12')
  client.send('{"key": "paws-abc123"}')
  expect((await seen)[0]).toBe('text key real"value\u00e4, paws-abc12')
  expect(JSON.parse((await seen)[1]?.slice(5) ?? '')).toEqual({ key: 'real"value\u00e4' })
})

test.each([
  [1000, 'done'],
  [3999, ''],
  [1005, ''],
])('the end is told with its code, both ways: %i %j', async (code, reason) => {
  for (const [from, to] of [
    ['client', 'host'],
    ['host', 'client'],
  ] as const) {
    const relayed = await relay()
    const closed = once(relayed[to], 'close')
    if (code === 1005) relayed[from].close()
    else relayed[from].close(code, reason)
    expect((await closed).map(String)).toEqual([String(code), reason])
    await relayed.ended
  }
})

test('one that breaks off takes the other with it, and so does the one that breaks both', async () => {
  for (const side of ['client', 'host'] as const) {
    const relayed = await relay()
    const closed = once(relayed[side === 'client' ? 'host' : 'client'], 'close')
    relayed[side].terminate()
    expect((await closed)[0]).toBe(1006)
    await relayed.ended
  }
  const { client, host, breakOff } = await relay()
  const both = Promise.all([once(client, 'close'), once(host, 'close')])
  breakOff()
  expect((await both).map(([code]) => code)).toEqual([1006, 1006])
})

test('a message that is too long ends both sides with 1009', async () => {
  const { client, host } = await relay({ secrets: [secret] })
  const closed = Promise.all([once(client, 'close'), once(host, 'close')])
  host.send(Buffer.alloc(16 * 1024 * 1024 + 1))
  expect((await closed).map(([code]) => code)).toEqual([1009, 1009])
})

test('a client that does not read holds back the host', async () => {
  const { client, host } = await relay({ secrets: [secret] })
  client.pause()
  const message = Buffer.alloc(1024 * 1024, 'x')
  for (let count = 0; count < 64; count++) host.send(message)
  await new Promise((resolve) => setTimeout(resolve, 500))
  expect(host.bufferedAmount).toBeGreaterThan(30 * message.length)
  const all = messages(client, 64)
  client.resume()
  expect(await all).toHaveLength(64)
})

test('another answer than the one asked for is handed on, and a host that breaks off is told of', async () => {
  const no = createServer().on('upgrade', (_request, socket) =>
    socket.end('HTTP/1.1 401 No\r\ncontent-length: 0\r\n\r\n'),
  )
  const declined = await ask(await listen(no), {})
  await once(declined.client, 'error')
  expect(declined.told).toEqual(['declined 401'])
  const gone = createServer().on('upgrade', (_request, socket) => socket.destroy())
  const failed = await ask(await listen(gone), {})
  await once(failed.client, 'error')
  expect(failed.told).toEqual(['failed socket hang up'])
})

test('a fault in handing an answer on ends that conversation, and not the process', async () => {
  const no = createServer().on('upgrade', (_request, socket) => socket.end('HTTP/1.1 401 No\r\n\r\n'))
  const faulty = await ask(await listen(no), { fault: new Error('A fault of ours') })
  const warned = once(process, 'warning')
  await once(faulty.client, 'error')
  await faulty.ended
  expect(faulty.told).toEqual(['ended'])
  expect(String((await warned)[0])).toContain('A fault of ours')
})

test('a client that leaves before the host has answered leaves nothing open', async () => {
  const asked = Promise.withResolvers<Socket>()
  const silent = createServer().on('upgrade', (_request, socket: Socket) => asked.resolve(socket))
  const { client, told, ended } = await ask(await listen(silent), {})
  client.on('error', () => undefined)
  const atHost = await asked.promise
  client.terminate()
  atHost.resume()
  await once(atHost, 'end')
  await ended
  expect(told).toEqual(['ended'])
})
