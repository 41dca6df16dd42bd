import { once } from 'node:events'
import { gzipSync } from 'node:zlib'
import { describe, expect, test } from 'vitest'
import { all, key, openWorld, standIn } from './testing/world.ts'

const world = openWorld()

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
    const socket = await world.openPlain('plain.test')
    socket.write(bytes, 'latin1')
    expect(await all(socket)).toMatch(/^HTTP\/1.1 400 /)
    expect(await world.slot.records()).toMatchObject([{ decision: 'refused', reason: 'request-malformed', port: 80 }])
    expect(world.upstream.requests).toEqual([])
  })

  test('a second request behind the first is judged for itself', async () => {
    const socket = await world.openTls('plain.test')
    socket.write('GET /a HTTP/1.1\r\nHost: plain.test\r\n\r\nGET /b HTTP/1.1\r\nHost: api.test\r\n\r\n')
    const text = await all(socket)
    expect(text).toMatch(/^HTTP\/1.1 200 .*HTTP\/1.1 421 /s)
    const records = (await world.slot.records(2)).sort((a, b) => (a.status ?? 0) - (b.status ?? 0))
    expect(records).toMatchObject([{ status: 200 }, { reason: 'sni-host-mismatch', host: 'api.test' }])
    expect(world.upstream.requests.map(({ target }) => target)).toEqual(['/a'])
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
    const socket = await world.openPlain('plain.test')
    socket.write(bytes)
    expect(await all(socket)).toContain(`"reason":"${reason}"`)
    expect(await world.slot.records()).toMatchObject([{ decision: 'refused', reason }])
    expect(world.upstream.requests).toEqual([])
  })

  test('an absolute target of the right host gets out as a path', async () => {
    const socket = await world.openPlain('plain.test')
    socket.write('GET http://plain.test/a?b HTTP/1.1\r\nHost: PLAIN.test.\r\nConnection: close\r\n\r\n')
    expect(await all(socket)).toMatch(/^HTTP\/1.1 200 /)
    expect(world.upstream.requests).toMatchObject([{ target: '/a?b' }])
  })

  test('headers without end are cut off', async () => {
    const socket = await world.openPlain('plain.test')
    socket.write('GET / HTTP/1.1\r\nHost: plain.test\r\n')
    for (let at = 0; at < 100; at++) socket.write(`X-${at}: ${'a'.repeat(1000)}\r\n`)
    // Whoever still sends may be cut off before the answer could be read; the record tells in any case.
    expect(await all(socket).catch((error: NodeJS.ErrnoException) => error.code)).toMatch(
      /^(HTTP\/1.1 431 |EPIPE|ECONNRESET)/,
    )
    expect(await world.slot.records()).toMatchObject([{ reason: 'request-malformed', status: 431 }])
  })

  test('Connection can not name the added header away, nor hop-by-hop headers get through', async () => {
    const socket = await world.openTls('api.test')
    const named =
      'Connection: authorization, x-mine, close\r\nX-Mine: 1\r\nTE: trailers\r\nProxy-Authorization: Basic eA=='
    socket.write(`GET / HTTP/1.1\r\nHost: api.test\r\n${named}\r\nAUTHORIZATION: a\r\nauthorization: b\r\n\r\n`)
    await all(socket)
    const [seen] = world.upstream.requests
    expect(seen?.rawHeaders.filter((name) => name.toLowerCase() === 'authorization')).toHaveLength(1)
    expect(seen?.headers.authorization).toBe(`Bearer ${key}`)
    for (const name of ['x-mine', 'te', 'proxy-authorization']) expect(seen?.headers).not.toHaveProperty(name)
  })

  test('git signs in by name and password', async () => {
    const socket = await world.openTls('api.test')
    socket.write(
      'GET /a/b.git/info/refs?service=git-upload-pack HTTP/1.1\r\nHost: api.test\r\nConnection: close\r\n\r\n',
    )
    await all(socket)
    const basic = Buffer.from(`x-access-token:${key}`).toString('base64')
    expect(world.upstream.requests[0]?.headers.authorization).toBe(`Basic ${basic}`)
  })

  test('a client that leaves breaks off what it asked for', async () => {
    const left = Promise.withResolvers<void>()
    world.upstream.answer('/slow', (_seen, response) => {
      response.once('close', left.resolve)
      response.write('begun')
    })
    const socket = await world.openTls('plain.test')
    socket.write('GET /slow HTTP/1.1\r\nHost: plain.test\r\n\r\n')
    await once(socket, 'data')
    socket.destroy()
    await left.promise
    expect(await world.slot.records()).toMatchObject([{ decision: 'allowed', status: 200, responseBytes: 5 }])
  })

  test('a host that breaks off leaves no doubt', async () => {
    world.upstream.answer('/half', (_seen, response, request) => {
      response.writeHead(200, { 'content-length': '100' })
      response.write('half')
      setTimeout(() => request.socket.destroy(), 50)
    })
    const socket = await world.openTls('plain.test')
    socket.write('GET /half HTTP/1.1\r\nHost: plain.test\r\n\r\n')
    const text = await all(socket)
    expect(text).toMatch(/half$/)
    expect(await world.slot.records()).toMatchObject([
      { decision: 'allowed', reason: 'upstream-unreachable', status: 200 },
    ])
  })

  test('a certificate that proves nothing is not accepted', async () => {
    const socket = await world.openTls('bad.test')
    socket.write('GET / HTTP/1.1\r\nHost: bad.test\r\n\r\n')
    expect(await all(socket)).toMatch(/^HTTP\/1.1 502 .*upstream-certificate/s)
    expect(await world.slot.records()).toMatchObject([
      { decision: 'refused', reason: 'upstream-certificate', status: 502 },
    ])
  })

  test('an upload is not answered by silence when the host can not be reached', async () => {
    const socket = await world.openTls('bad.test')
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
    const socket = await world.openTls('paths.test')
    socket.write(`${method} ${path} HTTP/1.1\r\nHost: paths.test\r\nConnection: close\r\n\r\n`)
    await all(socket)
    expect(world.upstream.requests[0]?.headers['x-key']).toBe(sent)
  })

  test.each(['/v1/../a', '/v1/%2e%2e/a', '/v1/..%2fa', '/v1/..\\a', '/v1//a', '/v1/%0aa', '/v1/..;/a', '/v1/%252e'])(
    '%s is ambiguous',
    async (path) => {
      const socket = await world.openTls('paths.test')
      socket.write(`GET ${path} HTTP/1.1\r\nHost: paths.test\r\n\r\n`)
      expect(await all(socket)).toMatch(/^HTTP\/1.1 403 .*path-ambiguous/s)
      expect(await world.slot.records()).toMatchObject([{ reason: 'path-ambiguous' }])
    },
  )

  test('placeholders are swapped in path, headers and body, and come back as nothing', async () => {
    world.upstream.answer('/echo', (seen, response) => response.end(seen.body))
    const socket = await world.openTls('swap.test')
    const body = JSON.stringify({ key: standIn })
    const head = `POST /echo?a=${standIn} HTTP/1.1\r\nHost: swap.test\r\nConnection: close\r\nX-Key: ${standIn}\r\n`
    socket.write(`${head}Content-Type: application/json\r\nContent-Length: ${body.length}\r\n\r\n${body}`)
    const text = await all(socket)
    expect(world.upstream.requests[0]).toMatchObject({
      target: '/echo?a=real%2Fvalue%20%221%22',
      headers: { 'x-key': 'real/value "1"' },
      body: JSON.stringify({ key: 'real/value "1"' }),
    })
    expect(world.upstream.requests[0]?.headers['content-length']).toBe(String(world.upstream.requests[0]?.body.length))
    expect(text).toContain('{"key":"***"}')
  })

  test('placeholders in a compressed body are swapped too', async () => {
    const socket = await world.openTls('swap.test')
    const body = gzipSync(`x ${standIn} y`)
    const head = `POST / HTTP/1.1\r\nHost: swap.test\r\nConnection: close\r\nContent-Encoding: gzip\r\n`
    socket.write(`${head}Content-Length: ${body.length}\r\n\r\n`)
    socket.write(body)
    await all(socket)
    expect(world.upstream.requests[0]?.body).toBe('x real/value "1" y')
    expect(world.upstream.requests[0]?.headers).not.toHaveProperty('content-encoding')
    expect(await world.slot.records()).toMatchObject([{ requestBytes: body.length, credential: true }])
  })
})
