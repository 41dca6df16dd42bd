import { describe, expect, test } from 'vitest'
import { drivers } from '../conformance/drivers.ts'
import { openEgressWorld, reasonIn } from '../support/egress.ts'
import { inSandbox } from './support/boxes.ts'

const hosts = ['allowed.test', 'second.test', 'evil.test']
const key = 'sk-http-0123456789abcdef'

/** Bytes of a request with these lines, to the host that is dialled unless they name another. */
const head = (first: string, ...lines: string[]) => [first, ...lines, '', ''].join('\r\n')
const own = 'Host: allowed.test'
const smuggled = head('GET /smuggled HTTP/1.1', 'Host: evil.test')

type Case = [what: string, bytes: string, ...reasons: string[]]
const agreement = ['sni-host-mismatch', 'host-address-mismatch']

const namings: Case[] = [
  ['an absolute target with another host', head('GET http://evil.test/ HTTP/1.1', own), ...agreement],
  ['an absolute target of TLS with another host', head('GET https://evil.test/ HTTP/1.1', own), ...agreement],
  ['an absolute target and another Host', head('GET http://allowed.test/ HTTP/1.1', 'Host: evil.test'), ...agreement],
  ['another port in the target', head('GET http://allowed.test:22/ HTTP/1.1', own), ...agreement, 'host-malformed'],
  ['userinfo in the target', head('GET http://evil.test@allowed.test/ HTTP/1.1', own), ...agreement, 'host-malformed'],
  [
    'two names in the target',
    head('GET http://allowed.test@evil.test/ HTTP/1.1', own),
    'host-malformed',
    'request-malformed',
    ...agreement,
  ],
  ['a target of another scheme', head('GET ftp://allowed.test/ HTTP/1.1', own), 'host-malformed', 'request-malformed'],
  ['a target without a scheme', head('GET evil.test/ HTTP/1.1', own), 'host-malformed', 'request-malformed'],
  ['a backslash for a target', head('GET \\\\evil.test\\ HTTP/1.1', own), 'host-malformed', 'request-malformed'],
  ['a fragment in the target', head('GET /a#b HTTP/1.1', own), 'request-malformed'],
  ['two Hosts', head('GET / HTTP/1.1', own, 'Host: evil.test'), 'host-malformed', 'request-malformed'],
  ['two Hosts, the other first', head('GET / HTTP/1.1', 'Host: evil.test', own), 'host-malformed', 'request-malformed'],
  ['the same Host twice', head('GET / HTTP/1.1', own, own), 'host-malformed', 'request-malformed'],
  ['no Host', head('GET / HTTP/1.1'), 'host-malformed', 'request-malformed'],
  ['no Host as of HTTP/1.0', head('GET / HTTP/1.0'), 'host-malformed', 'request-malformed'],
  ['an empty Host', head('GET / HTTP/1.1', 'Host:'), 'host-malformed', 'request-malformed'],
  [
    'a folded Host',
    head('GET / HTTP/1.1', 'Host: evil.test', ' allowed.test'),
    'host-malformed',
    'request-malformed',
    ...agreement,
  ],
  [
    'X-Forwarded-Host with another Host',
    head('GET / HTTP/1.1', 'Host: evil.test', 'X-Forwarded-Host: allowed.test'),
    ...agreement,
  ],
]

const chunked = 'Transfer-Encoding: chunked'
const framings: Case[] = [
  ['CL.TE', `${head('POST / HTTP/1.1', own, 'Content-Length: 6', chunked)}0\r\n\r\n${smuggled}`],
  ['TE.CL', `${head('POST / HTTP/1.1', own, chunked, 'Content-Length: 4')}5c\r\n${smuggled}0\r\n\r\n`],
  ['two lengths', `${head('POST / HTTP/1.1', own, 'Content-Length: 0', 'Content-Length: 60')}${smuggled}`],
  ['a list of lengths', `${head('POST / HTTP/1.1', own, 'Content-Length: 0, 60')}${smuggled}`],
  ['a length with a sign', `${head('POST / HTTP/1.1', own, 'Content-Length: +4')}abcd${smuggled}`],
  ['a negative length', `${head('POST / HTTP/1.1', own, 'Content-Length: -1')}${smuggled}`],
  ['a length in hex', `${head('POST / HTTP/1.1', own, 'Content-Length: 0x4')}abcd${smuggled}`],
  ['an endless length', `${head('POST / HTTP/1.1', own, 'Content-Length: 99999999999999999999999')}${smuggled}`],
  ['an unknown coding', `${head('POST / HTTP/1.1', own, 'Transfer-Encoding: xchunked')}0\r\n\r\n${smuggled}`],
  [
    'chunked, then another',
    `${head('POST / HTTP/1.1', own, 'Transfer-Encoding: chunked, identity')}0\r\n\r\n${smuggled}`,
  ],
  ['chunked twice', `${head('POST / HTTP/1.1', own, chunked, 'Transfer-Encoding: identity')}0\r\n\r\n${smuggled}`],
  ['a space before the colon', `${head('POST / HTTP/1.1', own, 'Transfer-Encoding : chunked')}0\r\n\r\n${smuggled}`],
  [
    'a vertical tab before chunked',
    `${head('POST / HTTP/1.1', own, 'Transfer-Encoding: \x0bchunked')}0\r\n\r\n${smuggled}`,
  ],
  ['a folded coding', `${head('POST / HTTP/1.1', own, 'Transfer-Encoding:', ' chunked')}0\r\n\r\n${smuggled}`],
  [
    'chunks of another size than they say',
    `${head('POST / HTTP/1.1', own, chunked)}3\r\nabcdef\r\n0\r\n\r\n${smuggled}`,
  ],
  [
    'a chunk of endless size',
    `${head('POST / HTTP/1.1', own, chunked)}FFFFFFFFFFFFFFFFF\r\nabc\r\n0\r\n\r\n${smuggled}`,
  ],
  ['a chunk of negative size', `${head('POST / HTTP/1.1', own, chunked)}-1\r\nabc\r\n0\r\n\r\n${smuggled}`],
  ['a chunk that says 0x', `${head('POST / HTTP/1.1', own, chunked)}0x3\r\nabc\r\n0\r\n\r\n${smuggled}`],
  ['a chunk with bare line feeds', `${head('POST / HTTP/1.1', own, chunked)}3\nabc\n0\n\n${smuggled}`],
  [
    'a chunk with a line feed in its extension',
    `${head('POST / HTTP/1.1', own, chunked)}3;a\nabc\r\n0\r\n\r\n${smuggled}`,
  ],
]

const shapes: Case[] = [
  ['bare line feeds', 'GET / HTTP/1.1\nHost: allowed.test\n\n'],
  ['a bare line feed in the middle', head('GET / HTTP/1.1', `${own}\nX-A: b`)],
  ['a bare carriage return', head('GET / HTTP/1.1', own, 'X-A: b\rX-C: d')],
  ['a NUL in a value', head('GET / HTTP/1.1', own, 'X-A: b\0c')],
  ['a NUL in a name', head('GET / HTTP/1.1', own, 'X\0A: b')],
  ['a control byte in a value', head('GET / HTTP/1.1', own, 'X-A: b\x01')],
  ['a space in a name', head('GET / HTTP/1.1', own, 'X A: b')],
  ['a space after a name', head('GET / HTTP/1.1', own, 'X-A : b')],
  ['a line without a colon', head('GET / HTTP/1.1', own, 'nothing')],
  ['an empty name', head('GET / HTTP/1.1', own, ': b')],
  ['a space before the first header', head('GET / HTTP/1.1', ` ${own}`, own)],
  ['no version', 'GET /\r\n\r\n'],
  ['version 1.2', head('GET / HTTP/1.2', own)],
  ['a space in the target', head('GET /a b HTTP/1.1', own)],
  ['a NUL in the target', head('GET /a\0b HTTP/1.1', own)],
  ['a control byte in the target', head('GET /a\x01b HTTP/1.1', own)],
  ['a method of lower case letters', head('get / HTTP/1.1', own)],
  ['a method that is none', head('G\xe9T / HTTP/1.1', own)],
]

describe.each(Object.entries(drivers))('%s: HTTP/1.1', { timeout: 30_000 }, (_, driver) => {
  const world = openEgressWorld(driver, { hosts })
  const credentials = { 'allowed.test': { headers: { 'x-api-key': key }, paths: ['/v1/*'] } }
  const box = inSandbox(world, { allowOut: ['second.test'], credentials })

  /** What follows a refusal on its connection must not be read: the two sides might disagree where it begins. */
  const refused = async (bytes: string, reasons: string[], port: 80 | 443) => {
    const before = box().records.length
    const { replies, closed } = await box().send('allowed.test', bytes, { port })
    expect(closed).toBe(true)
    const statuses = replies.map(({ status }) => status)
    expect(statuses.filter((status) => status < 400)).toEqual([])
    await expect
      .poll(() => box().records.slice(before), { interval: 10, message: JSON.stringify(statuses) })
      .toContainEqual(
        expect.objectContaining({ decision: 'refused', port, reason: expect.toBeOneOf(reasons) as never }),
      )
  }

  const targets = () => world.upstream.requests.map(({ target }) => target).sort()

  const ports = [443, 80] as const
  test.each(ports)('two requests on one connection to the host itself are both answered (%i)', async (port) => {
    const bytes = `${head('GET /a HTTP/1.1', own)}${head('GET /b HTTP/1.1', own)}`
    const { replies } = await box().send('allowed.test', bytes, { port, answers: 2 })
    expect(replies.map(({ status }) => status)).toEqual([200, 200])
    // Each goes its own way from here.
    expect(targets()).toEqual(['/a', '/b'])
  })

  describe.each(ports)('on port %i', (port) => {
    test.each(namings)('%s is refused', async (_, bytes, ...reasons) => {
      // Closing is asked for: a refusal that read the request whole may keep the connection.
      await refused(bytes.replace('\r\n\r\n', '\r\nConnection: close\r\n\r\n'), reasons, port)
      expect(world.upstream.requests).toEqual([])
    })

    test.each([...framings, ...shapes])('%s is not well-formed, and what follows it is not read', async (_, bytes) => {
      await refused(bytes, ['request-malformed', 'host-malformed'], port)
      // The first one may have begun to be sent on; it must not have ended, and nothing may come after it.
      expect(world.upstream.requests.filter(({ target, complete }) => target !== '/' || complete)).toEqual([])
    })

    test('a second request on the same connection to another host is refused, alone', async () => {
      const bytes = [own, 'Host: evil.test', 'Host: second.test', own].map((host, n) =>
        head(`GET /${n} HTTP/1.1`, host),
      )
      const { replies } = await box().send('allowed.test', bytes.join(''), { port, answers: 4 })
      const statuses = replies.map(({ status }) => status)
      expect(statuses.slice(0, 2)).toEqual([200, 421])
      expect(targets()).toEqual(statuses.length > 2 ? ['/0', '/3'] : ['/0'])
      const reason = port === 443 ? 'sni-host-mismatch' : 'host-address-mismatch'
      await box().recorded({ decision: 'refused', reason, host: 'evil.test', port })
    })

    test.each([
      ['CONNECT', head('CONNECT evil.test:443 HTTP/1.1', 'Host: evil.test:443')],
      ['CONNECT of the host itself', head('CONNECT allowed.test:443 HTTP/1.1', 'Host: allowed.test')],
      ['TRACE', head('TRACE / HTTP/1.1', own)],
    ])(
      '%s is refused',
      async (_, bytes) => {
        const { replies } = await box().send('allowed.test', [bytes, smuggled], { port, answers: 1 })
        expect(replies.map((reply) => [reply.status, reasonIn(reply)])[0]).toEqual([405, 'method-refused'])
        await box().recorded({ decision: 'refused', reason: 'method-refused', port })
        expect(world.upstream.requests).toEqual([])
      },
      20_000,
    )

    test.each([
      ['h2c', 'Connection: Upgrade, HTTP2-Settings', 'Upgrade: h2c', 'HTTP2-Settings: AAMAAABkAAQAAP__'],
      ['TLS', 'Connection: Upgrade', 'Upgrade: TLS/1.0'],
      ['several', 'Connection: Upgrade', 'Upgrade: websocket, h2c'],
      ['what nobody knows', 'Connection: Upgrade', 'Upgrade: gopher'],
    ])('an upgrade to %s is refused', async (_, ...lines) => {
      const bytes = `${head('GET / HTTP/1.1', own, ...lines)}${smuggled}`
      const { replies, closed } = await box().send('allowed.test', bytes, { port })
      expect(replies.map((reply) => [reply.status, reasonIn(reply)])).toEqual([[501, 'upgrade-refused']])
      expect(closed).toBe(true)
      await box().recorded({ decision: 'refused', reason: 'upgrade-refused', port })
      expect(world.upstream.requests).toEqual([])
    })

    test('floods of headers are cut off', async () => {
      const floods = [
        head('GET / HTTP/1.1', own, `X-A: ${'a'.repeat(200_000)}`),
        head('GET / HTTP/1.1', own, ...Array.from({ length: 20_000 }, (_, n) => `X-${n}: b`)),
        head(`GET /${'a'.repeat(200_000)} HTTP/1.1`, own),
        `GET / HTTP/1.1\r\n${'X-A: b\r\n'.repeat(50_000)}`,
      ]
      for (const flood of floods) {
        const before = box().records.length
        const { replies, closed } = await box().send('allowed.test', flood, { port })
        expect(closed).toBe(true)
        // What was still under way when it was closed may have taken the answer with it.
        expect(replies.map(({ status }) => status)).toEqual(replies.length ? [expect.toBeOneOf([400, 414, 431])] : [])
        await expect
          .poll(() => box().records.slice(before))
          .toContainEqual(expect.objectContaining({ decision: 'refused', reason: 'request-malformed', port }))
      }
      expect(world.upstream.requests).toEqual([])
    })

    test('what belongs to a connection is not passed on, nor what is said to belong to it', async () => {
      const reply = await box().request({
        host: 'second.test',
        secure: port === 443,
        method: 'POST',
        headers: [
          ['Connection', 'close, x-hop, content-length, host, X-Kept-Not'],
          ['X-Hop', '1'],
          ['x-kept-not', '1'],
          ['Keep-Alive', 'timeout=1'],
          ['Proxy-Connection', 'keep-alive'],
          ['TE', 'trailers'],
          ['X-Kept', '1'],
        ],
        body: 'whole',
      })
      expect(reply.status).toBe(200)
      const [seen] = world.upstream.requests
      expect(seen?.headers).toMatchObject({ host: 'second.test', 'x-kept': '1' })
      for (const name of ['x-hop', 'x-kept-not', 'keep-alive', 'proxy-connection', 'te']) {
        expect(Object.keys(seen?.headers ?? {})).not.toContain(name)
      }
      expect(seen?.body).toBe('whole')
    })

    test('trailers are not passed on: none can become a header there', async () => {
      const bytes = `${head('POST /trailed HTTP/1.1', own, chunked, 'Trailer: X-A')}3\r\nabc\r\n0\r\nX-A: b\r\nHost: evil.test\r\n\r\n`
      const { replies } = await box().send('allowed.test', bytes, { port, answers: 1 })
      expect(replies.map(({ status }) => status)).toEqual([expect.toBeOneOf([200, 400])])
      for (const { headers } of world.upstream.requests) expect(headers).not.toHaveProperty('x-a')
    })
  })

  test.each(['//evil.test/', '/@evil.test', '/http://evil.test/', '/?u=http://evil.test/', '/%2f%2fevil.test'])(
    'the target %s leads to the host itself',
    async (path) => {
      const reply = await box().request({ host: 'second.test', path })
      expect(reply.body).toBe('hello from second.test')
      expect(world.upstream.requests.map(({ headers }) => headers.host)).toEqual(['second.test'])
    },
  )

  describe('a credential that depends on the path', () => {
    const keysSeen = () => world.upstream.requests.map(({ target, headers }) => [target, headers['x-api-key']])

    test('is added where it says, only', async () => {
      for (const path of ['/v1/a', '/v1/?next=../../admin', '/v2/a', '/v1', '/V1/a', '/admin?/v1/a']) {
        expect(await box().request({ host: 'allowed.test', path })).toMatchObject({ status: 200 })
      }
      expect(keysSeen()).toEqual([
        ['/v1/a', key],
        ['/v1/?next=../../admin', key],
        ['/v2/a', undefined],
        ['/v1', undefined],
        ['/V1/a', undefined],
        ['/admin?/v1/a', undefined],
      ])
      await box().recorded({ decision: 'allowed', path: '/v1/a', credential: true })
      await box().recorded({ decision: 'allowed', path: '/v2/a' })
      expect(box().records.find(({ path }) => path === '/v2/a')?.credential ?? false).toBe(false)
    })

    test.each([
      '/v1/../admin',
      '/v1/./../admin',
      '/v1/..',
      '/v1/%2e%2e/admin',
      '/v1/%2E./admin',
      '/v1/.%2e/admin',
      '/v1/..%2fadmin',
      '/v1/%2e%2e%2fadmin',
      '/v1/..%5cadmin',
      '/v1/..\\admin',
      '/v1\\..\\admin',
      '/v1//admin',
      '/v1/%252e%252e/admin',
      '/v1/..;/admin',
      '/v1/..;x=y/admin',
      '/v1/a%00/../../admin',
      '/v1/a%0d%0aX: y',
      '/v1/a%3f/../../admin',
      '//v1/a',
      '/v1/\xc0\xae\xc0\xae/admin',
      '/v1/%c0%ae%c0%ae/admin',
      '/v1/%u002e%u002e/admin',
      'https://allowed.test/v1/../admin',
    ])('is not added to %s, which could be read in two ways', async (path) => {
      const { replies } = await box().send('allowed.test', head(`GET ${path} HTTP/1.1`, own), { answers: 1 })
      expect(replies.map((reply) => reply.status)).toEqual([expect.toBeOneOf([400, 403])])
      const malformed = path.includes(' ')
      await box().recorded({ decision: 'refused', reason: malformed ? 'request-malformed' : 'path-ambiguous' })
      expect(world.upstream.requests).toEqual([])
    })
  })
})
