import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { gzipSync } from 'node:zlib'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import {
  type CallOptions,
  startTestControlPlane,
  type TestControlPlane,
} from '../../../../test/support/control-plane.ts'
import { sendRaw } from '../../../../test/support/http.ts'

let plane: TestControlPlane
let port: number
beforeAll(async () => {
  plane = await startTestControlPlane()
  port = Number(new URL(plane.url).port)
})
afterAll(() => plane.close())

/** POST /v1/orgs, whose body is `{name}` */
const post = (body: unknown, options: CallOptions = {}) => plane.call('POST', '/v1/orgs', { body, ...options })
const organizations = async () => (await plane.database.db.selectFrom('organizations').select('id').execute()).length

describe('every answer has one shape', () => {
  test('also that of a path that is none, of another method and of what is no HTTP', async () => {
    const none = await plane.call('GET', '/v2/nothing')
    expect(none).toMatchObject({ status: 404, body: { error: { code: 'NOT_FOUND' } } })
    expect(none.headers.get('x-request-id')).toBe(none.body.error.requestId)

    const method = await plane.call('PUT', '/v1/orgs')
    expect(method).toMatchObject({ status: 405, body: { error: { code: 'METHOD_NOT_ALLOWED' } } })
    expect(method.headers.get('allow')).toBe('POST, GET')

    const refusal = /^HTTP\/1.1 400 .*X-Request-Id: req_.*"code":"VALIDATION_ERROR"/is
    expect(await sendRaw(port, 'NONSENSE\r\n\r\n')).toMatch(refusal)
    const long = await sendRaw(port, `GET /healthz?${'x'.repeat(20_000)} HTTP/1.1\r\nHost: x\r\n\r\n`)
    expect(long).toMatch(/^HTTP\/1.1 400 .*X-Request-Id: req_.*16 KiB/s)
    const host = 'GET /healthz HTTP/1.1\r\nHost: a b\r\nConnection: close\r\n\r\n'
    expect(await sendRaw(port, host)).toMatch(refusal)
    expect(await sendRaw(port, 'GET /healthz HTTP/1.1\r\nConnection: close\r\n\r\n')).toMatch(refusal)
    const expecting = 'GET /healthz HTTP/1.1\r\nHost: x\r\nExpect: wonders\r\nConnection: close\r\n\r\n'
    expect(await sendRaw(port, expecting)).toMatch(/^HTTP\/1.1 200 /)
    const terminal = `GET /v1/sessions/${crypto.randomUUID()}/terminal HTTP/1.1\r\nHost: x\r\nX-API-Key: ${plane.key}\r\n`
    const upgrade =
      'Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: x\r\n\r\n'
    expect(await sendRaw(port, terminal + upgrade)).toMatch(/^HTTP\/1.1 400 .*"path":"Sec-WebSocket-Key"/s)
  })

  test('as RFC 9457 for who accepts that', async () => {
    const headers = { accept: 'application/problem+json' }
    const { status, headers: answered, body } = await plane.call<object>('GET', '/v1/whoami', { key: null, headers })
    expect(answered.get('content-type')).toBe('application/problem+json')
    expect(body).toMatchObject({ type: 'urn:paws:error:UNAUTHORIZED', title: 'UNAUTHORIZED', status })
  })

  test('HEAD is GET without its body', async () => {
    const response = await fetch(`${plane.url}/openapi.json`, { method: 'HEAD' })
    expect(response.status).toBe(200)
    expect(Number(response.headers.get('content-length'))).toBeGreaterThan(10_000)
  })
})

describe('who asks', () => {
  test('is told by either header; a request without a valid key is 401', async () => {
    const { key } = plane
    const accepted: Record<string, string>[] = [{ 'x-api-key': key }, { authorization: `bearer ${key}` }]
    for (const headers of accepted) {
      expect((await plane.call('GET', '/v1/whoami', { key: null, headers })).status).toBe(200)
    }
    const refusable: Record<string, string>[] = [{}, { authorization: `Basic ${key}` }, { 'x-api-key': `${key}x` }]
    for (const headers of refusable) {
      const refused = await plane.call('GET', '/v1/whoami', { key: null, headers })
      expect(refused).toMatchObject({ status: 401, body: { error: { code: 'UNAUTHORIZED' } } })
      expect(refused.headers.get('www-authenticate')).toBe('Bearer realm="paws"')
    }
  })
})

describe('a body', () => {
  test.each([
    ['missing', undefined, { 'content-type': 'application/json' }, 400],
    ['empty', '', {}, 400],
    ['no JSON', '{"name"', {}, 400],
    ['no UTF-8', Buffer.from([0x22, 0xff, 0x22]), {}, 400],
    ['a number', '1', {}, 400],
    ['null', 'null', {}, 400],
    ['nested without end', '['.repeat(500_000), {}, 400],
    ['nested 65 deep', `${'['.repeat(65)}${']'.repeat(65)}`, {}, 400],
    ['text', 'name=x', { 'content-type': 'text/plain' }, 415],
    ['a form', 'name=x', { 'content-type': 'application/x-www-form-urlencoded' }, 415],
    ['compressed', gzipSync('{"name":"x"}'), { 'content-encoding': 'gzip' }, 415],
    ['longer than 1 MiB', JSON.stringify({ name: 'x'.repeat(1024 * 1024) }), {}, 413],
  ])('that is %s is refused, and nothing is written', async (_what, body, headers, status) => {
    const before = await organizations()
    const refused = await post(body, { headers: headers as Record<string, string> })
    expect(refused.status).toBe(status)
    if (status === 400) expect(refused.body.error.details?.[0]).toMatchObject({ path: 'body' })
    expect(await organizations()).toBe(before)
  })

  test('that passes its limit is refused while it comes, its length unsaid', async () => {
    const chunk = `10000\r\n${'x'.repeat(0x10000)}\r\n`
    const head = `POST /v1/orgs HTTP/1.1\r\nHost: x\r\nX-API-Key: ${plane.key}\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n`
    // It never ends: the answer must come before.
    const answer = await Promise.race([
      sendRaw(port, head, ...Array.from({ length: 40 }, () => chunk)),
      new Promise<string>((_, reject) => setTimeout(() => reject(new Error('no answer')), 20_000)),
    ])
    expect(answer).toMatch(/^HTTP\/1.1 413 .*PAYLOAD_TOO_LARGE/s)
  })

  test('that nobody asked for keeps no connection open', { timeout: 20_000 }, async () => {
    const refused = sendRaw(port, 'GET /v1/whoami HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nx')
    const head = 'GET /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: '
    // What comes whole is passed over, and the connection serves on.
    const whole = sendRaw(port, `${head}1\r\n\r\nx${head}9\r\nConnection: close\r\n\r\nx`)
    expect(await refused).toMatch(/^HTTP\/1.1 401 /)
    expect((await whole).match(/HTTP\/1.1 200 /g)).toHaveLength(2)
  })

  test('is refused field by field, each named once', async () => {
    const { body } = await post({ nam: 'x', 'with.dot': 1, agent: {} })
    expect(body.error.details).toEqual([
      { path: 'name', message: expect.stringContaining('expected string') },
      { path: 'nam', message: 'Unknown key "nam"' },
      { path: 'with.dot', message: 'Unknown key "with.dot"' },
      { path: 'agent', message: '"agent" is not supported yet by this version' },
    ])
    expect(body.error.message).toContain('and 3 more')
  })

  test('with thousands of unknown keys is answered briefly', async () => {
    const many = Object.fromEntries(Array.from({ length: 20_000 }, (_, i) => [`k${i}`, i]))
    const { body } = await post(many)
    expect(body.error.details).toHaveLength(100)
  })

  test.each(['a\\u0000b', '\\ud800', 'x\\udc00'])('whose name holds %s is refused: it is not text', async (name) => {
    const { status, body } = await post(`{"name":"${name}"}`)
    expect({ status, path: body.error.details?.[0]?.path }).toEqual({ status: 400, path: 'name' })
  })

  test('with __proto__ or a key twice does no harm', async () => {
    const proto = await post('{"name":"x","__proto__":{"admin":true}}')
    expect(proto.status).toBe(400)
    expect(proto.body.error.details).toEqual([{ path: '__proto__', message: 'Unknown key "__proto__"' }])
    const twice = await plane.call<{ name: string }>('POST', '/v1/orgs', { body: '{"name":"first","name":"second"}' })
    expect(twice).toMatchObject({ status: 201, body: { name: 'second' } })
  })
})

describe('a path or query', () => {
  test.each(['%00', 'a%00b', '%', '%ff', 'x'.repeat(300), '..%2f..', "' or 1=1", '%F0%9F%90%BE'])(
    'with the id %s is not found',
    async (id) => {
      const { status, body } = await plane.call('GET', `/v1/orgs/${id}`)
      expect({ status, code: body.error.code }).toEqual({ status: 404, code: 'ORGANIZATION_NOT_FOUND' })
    },
  )

  test.each([
    ['limit=0', 'limit'],
    ['limit=x', 'limit'],
    ['limit=1&limit=2', 'limit'],
    ['cursor=%00', 'cursor'],
    [`cursor=${'x'.repeat(300)}`, 'cursor'],
  ])('with %s is refused by name', async (query, path) => {
    const { status, body } = await plane.call('GET', `/v1/orgs?${query}`)
    expect(status).toBe(400)
    expect(body.error.details).toMatchObject([{ path }])
  })
})

test('the document is served twice, as it stands in the repository, and the reference shows every operation and loads nothing from elsewhere', async () => {
  const document = await plane.call<{ paths: Record<string, Record<string, { operationId: string }>> }>(
    'GET',
    '/openapi.json',
  )
  expect((await plane.call('GET', '/api/openapi')).body).toEqual(document.body)
  const copy = await readFile(join(import.meta.dirname, '../../../../openapi.json'), 'utf8')
  expect(document.body).toEqual(JSON.parse(copy))
  const { body: page } = await plane.call<string>('GET', '/reference', { key: null })
  const operations = Object.values(document.body.paths).flatMap((item) => Object.values(item))
  for (const { operationId } of operations) expect(page).toContain(`<article id="${operationId}">`)
  expect(page).not.toMatch(/<script|<link|src=|@import|url\(|href="[^#/]/)
})

test('readiness says which migrations are missing', async () => {
  expect(await plane.call('GET', '/readyz')).toMatchObject({ status: 200, body: { status: 'ready' } })
  await plane.database.db.schema.alterTable('migrations').renameTo('away').execute()
  try {
    for (const path of ['/readyz', '/health']) {
      const answer = await plane.call('GET', path)
      expect(answer).toMatchObject({ status: 503, body: { error: { code: 'NOT_READY' } } })
      expect(answer.headers.get('retry-after')).toBe('1')
    }
  } finally {
    await plane.database.db.schema.alterTable('away').renameTo('migrations').execute()
  }
})
