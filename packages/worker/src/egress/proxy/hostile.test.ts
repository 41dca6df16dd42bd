import { createSocket } from 'node:dgram'
import { once } from 'node:events'
import { setTimeout as wait } from 'node:timers/promises'
import { constants, createZstdCompress } from 'node:zlib'
import { decode, encode } from 'dns-packet'
import { expect, test } from 'vitest'
import { all, openWorld, standIn } from './testing/world.ts'

const world = openWorld()

/** A request for a WebSocket, byte by byte as it is sent. */
const webSocketTo = (host: string, path: string, more: string[] = []) =>
  [
    `GET ${path} HTTP/1.1`,
    `Host: ${host}`,
    'Connection: Upgrade',
    'Upgrade: websocket',
    'Sec-WebSocket-Version: 13',
    'Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==',
    ...more,
    '\r\n',
  ].join('\r\n')

async function stillServes(): Promise<void> {
  const socket = await world.openPlain('plain.test')
  socket.write('GET / HTTP/1.1\r\nHost: plain.test\r\nConnection: close\r\n\r\n')
  expect(await all(socket)).toMatch(/^HTTP\/1.1 200 /)
  expect(world.egress.child.exitCode).toBeNull()
}

test('a WebSocket that is asked for behind an unanswered request is refused, and ends only its connection', async () => {
  world.upstream.answer('/slow', async (_seen, response) => {
    await wait(1000)
    response.end('slow')
  })
  world.upstream.decline('/declined', () => 'no')
  const alone = await world.openPlain('plain.test')
  alone.write(webSocketTo('plain.test', '/declined'))
  expect(await all(alone)).toMatch(/^HTTP\/1.1 403 /)
  expect(await world.slot.records()).toMatchObject([{ decision: 'allowed', status: 403 }])

  const behind = await world.openPlain('plain.test')
  behind.write(`GET /slow HTTP/1.1\r\nHost: plain.test\r\n\r\n${webSocketTo('plain.test', '/declined')}`)
  expect(await all(behind, 1500)).toBe('')
  const records = await world.slot.records(2)
  expect(records).toContainEqual(
    expect.objectContaining({ decision: 'refused', reason: 'upgrade-refused', status: 400 }),
  )
  expect(world.upstream.requests.filter(({ target }) => target === '/declined')).toHaveLength(1)
  await stillServes()
})

test('a WebSocket that is asked for after an answer on the same connection is taken', async () => {
  const socket = await world.openPlain('plain.test')
  socket.write('GET / HTTP/1.1\r\nHost: plain.test\r\n\r\n')
  await wait(300)
  socket.write(webSocketTo('plain.test', '/chat'))
  expect(await all(socket)).toMatch(/^HTTP\/1.1 200 .*HTTP\/1.1 101 /s)
})

test.each(['constructor', '__proto__', 'toString'])('%s is a header like others', async (name) => {
  const socket = await world.openPlain('plain.test')
  socket.write(webSocketTo('plain.test', '/chat', [`${name}: mine`]))
  expect(await all(socket)).toMatch(/^HTTP\/1.1 101 /)
  expect(world.upstream.requests.at(-1)?.rawHeaders).toContain('mine')

  world.upstream.answer('/odd', (_seen, response, request) => {
    request.socket.end(`HTTP/1.1 200 OK\r\n${name}: theirs\r\nContent-Length: 2\r\n\r\nok`)
    response.destroy()
  })
  for (const host of ['plain.test', 'api.test']) {
    const asking = await world.openTls(host)
    asking.write(`GET /odd HTTP/1.1\r\nHost: ${host}\r\n${name}: mine\r\nConnection: close\r\n\r\n`)
    expect(await all(asking)).toMatch(new RegExp(`^HTTP/1.1 200 .*${name}: theirs.*ok$`, 'is'))
  }
})

test.each(['constructor', '__proto__'])('an encoding called %s is one that nobody knows', async (encoding) => {
  world.upstream.answer('/odd-encoding', (_seen, response) => {
    response.writeHead(200, { 'content-encoding': encoding }).end('odd')
  })
  const socket = await world.openTls('api.test')
  socket.write('GET /odd-encoding HTTP/1.1\r\nHost: api.test\r\n\r\n')
  expect(await all(socket)).toMatch(/^HTTP\/1.1 502 .*encoding-unknown/s)
  expect(await world.slot.records()).toMatchObject([{ reason: 'encoding-unknown', status: 502 }])
})

test.each([
  [23, 'allowed'],
  [24, 'refused'],
])('a zstd window of 2^%i bytes is %s', async (windowLog, outcome) => {
  world.upstream.answer('/window', (_seen, response) => {
    response.writeHead(200, { 'content-encoding': 'zstd' })
    const compress = createZstdCompress({ params: { [constants.ZSTD_c_windowLog]: windowLog } })
    compress.pipe(response)
    // In two pieces, so that its length, which would do for a window, is not known before.
    compress.write('a'.repeat(1000))
    compress.flush(() => compress.end('the end'))
  })
  const socket = await world.openTls('api.test')
  socket.write('GET /window HTTP/1.1\r\nHost: api.test\r\nConnection: close\r\n\r\n')
  const text = await all(socket)
  const [record] = await world.slot.records()
  expect(text.includes('the end')).toBe(outcome === 'allowed')
  expect(record?.reason).toBe(outcome === 'allowed' ? undefined : 'upstream-unreachable')
  await stillServes()
})

/** Nobody acknowledges the records of these, so that there is no room for more. */
async function fillRecords(): Promise<void> {
  const socket = await world.openPlain('plain.test')
  socket.write('GET / HTTP/1.1\r\nHost: api.test\r\n\r\n'.repeat(2100))
  let count = 0
  while (count < 2000) count += (await world.egress.heard('records')).records.length
  socket.destroy()
}

test('malformed requests wait for room like others', async () => {
  await fillRecords()
  const socket = await world.openPlain('plain.test')
  socket.write('BAD\r\n\r\n')
  const text = all(socket, 3000)
  await wait(500)
  expect(world.egress.said.filter(({ type }) => type === 'records')).toEqual([])
  await world.egress.send({ type: 'recorded', slot: world.slot.name, count: 2000 })
  expect(await text).toMatch(/^HTTP\/1.1 400 /)
})

test('questions by datagram are let fall while there is no room', async () => {
  await fillRecords()
  const socket = createSocket('udp6')
  const ask = (id: number) => {
    const query = encode({ type: 'query', id, questions: [{ type: 'A', name: 'plain.test' }] })
    socket.send(query, world.slot.ports['dns-udp'], '::1')
  }
  const answered: (number | undefined)[] = []
  socket.on('message', (message) => answered.push(decode(message).id))
  for (let id = 1; id < 50; id++) ask(id)
  await wait(300)
  await world.egress.send({ type: 'recorded', slot: world.slot.name, count: 2000 })
  await wait(300)
  ask(50)
  await once(socket, 'message')
  expect(answered).toEqual([50])
  socket.close()
})

test('what is held of bodies until their end is bounded; beyond that they go out as they come', async () => {
  world.upstream.answer('/held', (_seen, response) => response.end('taken'))
  const MB = 1024 * 1024
  const post = async (count: number) => {
    const sockets = await Promise.all(Array.from({ length: count }, () => world.openTls('swap.test')))
    for (const socket of sockets) {
      socket.write(`POST /held HTTP/1.1\r\nHost: swap.test\r\nConnection: close\r\nContent-Length: ${MB}\r\n\r\n`)
      socket.write(standIn.padEnd(MB - 1, 'a'))
    }
    await wait(1000)
    const early = world.upstream.requests.length
    for (const socket of sockets) socket.write('z')
    for (const text of await Promise.all(sockets.map((socket) => all(socket, 2000)))) expect(text).toMatch(/taken/)
    return early
  }
  expect(await post(36)).toBe(4)
  const { requests } = world.upstream
  expect(requests.filter(({ headers }) => headers['transfer-encoding'] === 'chunked')).toHaveLength(4)
  expect(requests.filter(({ headers }) => headers['content-length'] !== undefined)).toHaveLength(32)
  for (const { body } of requests) expect([body.slice(0, 16), body.at(-1)]).toEqual(['real/value "1"aa', 'z'])
  world.upstream.forget()
  expect(await post(2)).toBe(0)
})

test('a sandbox has 64 WebSockets at most at a time', async () => {
  const ask = async () => {
    const socket = await world.openPlain('plain.test')
    socket.write(webSocketTo('plain.test', '/chat'))
    const [answer] = (await once(socket, 'data')) as [Buffer]
    return { socket, status: answer.toString('latin1').slice(9, 12), answer: String(answer) }
  }
  const open = await Promise.all(Array.from({ length: 64 }, ask))
  expect(open.map(({ status }) => status)).toEqual(Array(64).fill('101'))
  const refused = await ask()
  expect(refused.answer).toMatch(/^HTTP\/1.1 429 .*too-many-connections/s)
  expect(await world.slot.records()).toMatchObject([
    { decision: 'refused', reason: 'too-many-connections', status: 429 },
  ])
  open[0]?.socket.destroy()
  await world.slot.records()
  expect(await ask()).toMatchObject({ status: '101' })
  for (const { socket } of open) socket.destroy()
})

test('messages without end are held up to a bound, and the WebSockets that go beyond are broken off', async () => {
  const MB = 1024 * 1024
  world.upstream.webSocket('/endless', () => undefined)
  const closed: string[] = []
  const unfinished = async () => {
    const socket = await world.openPlain('plain.test')
    socket.on('error', () => undefined).write(webSocketTo('plain.test', '/endless'))
    await once(socket, 'data')
    socket.once('close', () => closed.push('closed')).resume()
    // The first piece of a message, FIN unset, with a mask of zeros.
    const head = Buffer.from([0x02, 0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])
    head.writeUInt32BE(15 * MB, 6)
    socket.write(Buffer.concat([head, Buffer.alloc(15 * MB - 1)]))
    return socket
  }
  const open = await Promise.all(Array.from({ length: 4 }, unfinished))
  await wait(1000)
  expect(closed).toEqual([])
  const another = await unfinished()
  await expect.poll(() => closed, { timeout: 5000 }).toHaveLength(1)
  for (const socket of [...open, another]) socket.destroy()
  await world.slot.records(5)
  // What they held is let go: as much as before can be held again.
  closed.length = 0
  const again = await Promise.all(Array.from({ length: 4 }, unfinished))
  await wait(1000)
  expect(closed).toEqual([])
  for (const socket of again) socket.destroy()
})
