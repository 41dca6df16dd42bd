import { connect } from 'node:http2'
import { describe, expect, test } from 'vitest'
import { drivers } from '../conformance/drivers.ts'
import { openEgressWorld } from '../support/egress.ts'
import { inSandbox } from './support/boxes.ts'
import { exchangeFrames, fields, flags, frame, frameTypes, preface, request, usual } from './support/http2-frames.ts'

const hosts = ['allowed.test', 'second.test', 'evil.test']
const key = 'sk-http2-0123456789abcdef'
const protocolError = 1
const reasons = ['sni-host-mismatch', 'host-malformed', 'request-malformed', 'method-refused', 'path-ambiguous']
/** What a request has on its way that came with no header of its own. */
const ours = ['accept-encoding', 'connection', 'host']
type Field = [name: string, value: string]
const without = (name: string) => usual('allowed.test').filter(([field]) => field !== name)
const instead = (name: string, value: string): Field[] =>
  usual('allowed.test').map((field): Field => (field[0] === name ? [name, value] : field))
const beside = (...more: Field[]): Field[] => [...usual('allowed.test'), ...more]

/** Each is refused by itself, as one request, or ends its connection. */
const requests: Record<string, Field[]> = {
  'another Host than :authority': beside(['host', 'evil.test']),
  'two Hosts': beside(['host', 'allowed.test'], ['host', 'evil.test']),
  'two authorities': beside([':authority', 'evil.test']),
  'neither Host nor :authority': without(':authority'),
  'userinfo in :authority': instead(':authority', 'allowed.test@evil.test'),
  'an address as :authority': instead(':authority', '127.0.0.1'),
  'a port of another service': instead(':authority', 'allowed.test:22'),
  'a list as :authority': instead(':authority', 'allowed.test,evil.test'),
  'line breaks in :authority': instead(':authority', 'allowed.test\r\nhost: evil.test'),
  'line breaks in :path': instead(':path', '/ HTTP/1.1\r\nHost: evil.test\r\n\r\n'),
  'a space in :path': instead(':path', '/ HTTP/1.1'),
  'a whole address in :path': instead(':path', 'https://evil.test/'),
  'no :path': without(':path'),
  'an empty :path': instead(':path', ''),
  'an asterisk in :path': instead(':path', '*'),
  'a :path without its slash': instead(':path', '@evil.test/'),
  'line breaks in :method': instead(':method', 'GET / HTTP/1.1\r\nHost: evil.test\r\n\r\nGET'),
  'a space in :method': instead(':method', 'GET /x'),
  CONNECT: [
    [':method', 'CONNECT'],
    [':authority', 'evil.test:443'],
  ],
  'CONNECT for WebSockets': [...instead(':method', 'CONNECT'), [':protocol', 'websocket']],
  TRACE: instead(':method', 'TRACE'),
  'an unknown pseudo field': beside([':evil', 'x']),
  'a pseudo field after others': [['x-a', 'b'], ...usual('allowed.test')],
  'upper case': beside(['X-Api-Key', 'own']),
  'a connection of its own': beside(['connection', 'x-api-key']),
  'a coding of its own': beside(['transfer-encoding', 'chunked']),
  'an upgrade': beside(['connection', 'upgrade'], ['upgrade', 'h2c']),
  'a length that is not true': beside(['content-length', '100']),
  'two lengths': beside(['content-length', '0'], ['content-length', '5']),
  'a path that a credential must not be added to': instead(':path', '/v1/../admin'),
}

/** Each loses what is wrong with it, and is then as good as any. */
const cleaned: Record<string, Field[]> = {
  'another scheme': instead(':scheme', 'http'),
  'a name with a space': beside(['x a', 'b']),
  'a name with a colon': beside(['x:a', 'b']),
  'a name with line breaks': beside(['x\r\nhost: evil.test\r\nx', 'b']),
  'an empty name': beside(['', 'b']),
  'a value with line breaks': beside(['x-a', 'b\r\nHost: evil.test']),
  'a value with a NUL': beside(['x-a', 'b\0c']),
}

describe.each(Object.entries(drivers))('%s: HTTP/2', { timeout: 30_000 }, (_, driver) => {
  const world = openEgressWorld(driver, { hosts })
  const credentials = { 'allowed.test': { headers: { 'x-api-key': key }, paths: ['/v1/*'] } }
  const box = inSandbox(world, { allowOut: ['second.test'], credentials })

  const exchange = async (parts: Buffer[], until?: number) => {
    const socket = await box().tls('allowed.test', { alpn: ['h2'] })
    return exchangeFrames(socket, Buffer.concat([preface, ...parts]), { until })
  }
  /** As a program that behaves: it must hear an answer whatever another connection is doing. */
  const works = async (host = 'second.test') => {
    const socket = await box().tls(host, { alpn: ['h2'] })
    const session = connect(`https://${host}`, { createConnection: () => socket })
    const stream = session.request({ ':path': '/works' })
    let text = ''
    for await (const chunk of stream) text += chunk
    session.destroy()
    return text
  }

  test('a request by hand is answered', async () => {
    const frames = await exchange([request(1, usual('allowed.test', '/v1/a')), request(3, usual('allowed.test', '/b'))])
    const answered = frames
      .filter(({ type }) => type === frameTypes.headers)
      .map(({ stream, payload }) => [stream, payload[0]])
    // 0x88 is ":status: 200".
    expect(answered.sort()).toEqual([
      [1, 0x88],
      [3, 0x88],
    ])
    const seen = world.upstream.requests.map(({ target, headers }) => [target, headers['x-api-key']])
    expect(seen.sort()).toEqual([
      ['/b', undefined],
      ['/v1/a', key],
    ])
  })

  test.each(Object.entries(requests))('%s is refused', async (_, list) => {
    const before = box().records.length
    const isLength = list.some(([name]) => name === 'content-length')
    const frames = await exchange([request(1, list), request(3, usual('allowed.test', '/after'))], 3)
    const answers = frames.filter(({ type, stream }) => type === frameTypes.headers && stream === 1)
    // Answered by a refusal, or ended; never 200.
    expect(answers.map(({ payload }) => payload[0])).not.toContain(0x88)
    expect(frames.length).toBeGreaterThan(0)
    const said = frames.flatMap(({ type, stream, payload }) => {
      if (type === frameTypes.reset && stream === 1) return [payload.readUInt32BE(0)]
      return type === frameTypes.goAway ? [payload.readUInt32BE(4)] : []
    })
    // Either the frames themselves were against the protocol, which ends them where they are read, and says so; or it is
    // a request, which is then judged.
    if (answers.length === 0) expect(said).toContain(protocolError)
    else {
      await expect
        .poll(() => box().records.slice(before), { timeout: 2000, interval: 10 })
        .toContainEqual(expect.objectContaining({ decision: 'refused', port: 443, reason: expect.toBeOneOf(reasons) }))
    }
    const others = world.upstream.requests.filter(({ target }) => target !== '/after')
    expect(isLength ? others.filter(({ complete }) => complete) : others).toEqual([])
    for (const { headers } of world.upstream.requests) expect(headers.host).toBe('allowed.test')
  })

  test.each(Object.entries(cleaned))('%s does not get through', async (_, list) => {
    await exchange([request(1, list)], 1)
    expect(world.upstream.requests.map(({ target, headers }) => [target, headers.host])).toEqual([
      ['/', 'allowed.test'],
    ])
    const { rawHeaders } = world.upstream.requests[0] ?? { rawHeaders: [] }
    expect(
      rawHeaders
        .filter((_, at) => at % 2 === 0)
        .map((name) => name.toLowerCase())
        .sort(),
    ).toEqual(ours)
    expect(world.upstream.requests[0]?.secure).toBe(true)
  })

  describe('floods', () => {
    const head = fields(usual('allowed.test'))
    const floods: Record<string, () => Buffer[]> = {
      'of continued headers that never end': () => [
        frame(frameTypes.headers, flags.endStream, 1, head),
        ...Array.from({ length: 2000 }, () => frame(frameTypes.more, 0, 1, fields([['x-a', 'b'.repeat(500)]]))),
      ],
      'of empty continued headers': () => [
        frame(frameTypes.headers, flags.endStream, 1, head),
        ...Array.from({ length: 20_000 }, () => frame(frameTypes.more, 0, 1, Buffer.alloc(0))),
      ],
      'of requests reset at once': () =>
        Array.from({ length: 3000 }, (_, at) => [
          request(2 * at + 1, usual('allowed.test', '/reset')),
          frame(frameTypes.reset, 0, 2 * at + 1, Buffer.from([0, 0, 0, 8])),
        ]).flat(),
      'of settings': () => Array.from({ length: 20_000 }, () => frame(frameTypes.settings, 0, 0, Buffer.alloc(0))),
      'of pings': () => Array.from({ length: 50_000 }, () => frame(frameTypes.ping, 0, 0, Buffer.alloc(8))),
      'of empty data': () => [
        request(1, [...usual('allowed.test', '/empty')], false),
        ...Array.from({ length: 50_000 }, () => frame(frameTypes.data, 0, 1, Buffer.alloc(0))),
      ],
      'of requests at the same time': () =>
        Array.from({ length: 5000 }, (_, at) => request(2 * at + 1, usual('allowed.test', '/many'), false)),
      'of headers': () => [
        request(1, [...usual('allowed.test'), ...Array.from({ length: 5000 }, (_, at): Field => [`x-${at}`, 'b'])]),
      ],
      'of one header': () => [
        frame(frameTypes.headers, 0, 1, head),
        frame(frameTypes.more, flags.endHeaders, 1, Buffer.concat([fields([['x-a', 'b'.repeat(16_000)]])])),
        ...Array.from({ length: 50 }, (_, at) =>
          request(2 * at + 3, [...usual('allowed.test'), ['x-a', 'b'.repeat(16_000)]]),
        ),
      ],
      'of windows that overflow': () => [
        request(1, usual('allowed.test', '/window')),
        ...Array.from({ length: 10 }, () =>
          frame(frameTypes.windowUpdate, 0, 0, Buffer.from([0x7f, 0xff, 0xff, 0xff])),
        ),
      ],
      'of frames of no known kind': () =>
        Array.from({ length: 20_000 }, (_, at) => frame(0xb0, 0, at, Buffer.alloc(10))),
      'of frames longer than agreed': () => [frame(frameTypes.data, 0, 1, Buffer.alloc(1_000_000))],
      'of what is no frame at all': () => [Buffer.alloc(100_000, 0xff)],
    }
    test.each(Object.entries(floods))('%s end at their own connection', async (_, flood) => {
      const { pid } = world.outlets
      const running = exchange(flood())
      expect(await works()).toBe('hello from second.test')
      await running
      expect(await works('allowed.test')).toBe('hello from allowed.test')
      expect(world.outlets.pid).toBe(pid)
      // What is reset before it is looked at may go out; no more of them than a client could have open.
      const sent = world.upstream.requests.filter(({ target }) => target !== '/works')
      expect(sent.length).toBeLessThanOrEqual(400)
    })
  })
})
