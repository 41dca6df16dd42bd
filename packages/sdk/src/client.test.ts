import { expect, test } from 'vitest'
import { createClient } from './client.ts'
import { broken, json, refusal, serve } from './testing/serve.ts'

const accepted = { sessionId: 'd2a2a1b0-0000-4000-8000-000000000000', status: 'pending' }
const body = { snapshot: 'minimal', workload: { type: 'script', script: 'echo hello' } } as const

test('the key goes with every request, and the answer comes back typed', async () => {
  const { url, seen } = await serve(json(202, accepted))
  const paws = createClient({ url: `${url}/`, apiKey: 'sk_live_x' })
  expect(await paws.sessions.create(body)).toEqual(accepted)
  expect(seen[0]).toMatchObject({ method: 'POST', path: '/v1/sessions', body: JSON.stringify(body) })
  expect(seen[0]?.headers.authorization).toBe('Bearer sk_live_x')
})

test('a create is repeated after a lost connection and a 503, under one idempotency key', async () => {
  const { url, seen } = await serve(broken, refusal(503, 'NOT_READY'), json(202, accepted))
  await createClient({ url }).sessions.create(body)
  expect(seen.map((one) => one.body)).toEqual(Array(3).fill(JSON.stringify(body)))
  expect(new Set(seen.map((one) => one.headers['idempotency-key'])).size).toBe(1)
  expect(seen[0]?.headers['idempotency-key']).toMatch(/^[0-9a-f-]{36}$/)
})

test('two creates have two idempotency keys', async () => {
  const { url, seen } = await serve(json(202, accepted))
  const paws = createClient({ url })
  await paws.sessions.create(body)
  await paws.sessions.create(body)
  expect(new Set(seen.map((one) => one.headers['idempotency-key'])).size).toBe(2)
})

test('while the first request with a key is in flight, the second comes again; another body is refused', async () => {
  const inFlight = await serve(refusal(409, 'IDEMPOTENCY_CONFLICT'), json(202, accepted))
  expect(await createClient(inFlight).sessions.create(body)).toEqual(accepted)
  const other = await serve(refusal(422, 'IDEMPOTENCY_CONFLICT'))
  await expect(createClient(other).sessions.create(body)).rejects.toMatchObject({ status: 422 })
  expect(other.seen).toHaveLength(1)
})

test('what could happen twice is not repeated: a drain, a command', async () => {
  const { url, seen } = await serve(broken)
  const paws = createClient({ url })
  await expect(paws.fleet.drain('w1')).rejects.toMatchObject({ code: 'UNREACHABLE' })
  await expect(paws.sessions.exec('x', { command: ['ls'] }).next()).rejects.toMatchObject({ code: 'UNREACHABLE' })
  expect(seen).toHaveLength(2)
})

test('a refusal is thrown with code, status, request id and details, and not repeated', async () => {
  const error = {
    code: 'VALIDATION_ERROR',
    message: 'No.',
    requestId: 'req_9',
    details: [{ path: 'snapshot', message: 'Required' }],
  }
  const { url, seen } = await serve(json(400, { error }))
  await expect(createClient({ url }).sessions.create(body)).rejects.toMatchObject({
    name: 'PawsError',
    status: 400,
    ...error,
  })
  expect(seen).toHaveLength(1)
})

test('Retry-After is kept to when short, and told when long', async () => {
  const short = await serve(refusal(503, 'CAPACITY_EXHAUSTED', { 'retry-after': '1' }), json(202, accepted))
  const begun = performance.now()
  await createClient(short).sessions.create(body)
  expect(performance.now() - begun).toBeGreaterThan(990)
  const long = await serve(refusal(503, 'CAPACITY_EXHAUSTED', { 'retry-after': '60' }))
  await expect(createClient(long).sessions.create(body)).rejects.toMatchObject({ retryAfterMs: 60_000 })
  expect(long.seen).toHaveLength(1)
})

test('an answer that is not of paws, and no answer at all, say what to check', async () => {
  const { url } = await serve((response) => response.writeHead(404).end('<h1>nginx</h1>'))
  await expect(createClient({ url }).whoami()).rejects.toThrow(/answered 404 Not Found, which is not an answer of paws/)
  const nobody = createClient({ url: 'http://127.0.0.1:1', retries: 0 })
  await expect(nobody.whoami()).rejects.toThrow(/127\.0\.0\.1:1 could not be reached: .*(ECONNREFUSED|bad port)/)
  expect(() => createClient({ url: 'localhost:8080' })).toThrow(/is not the URL of a control plane/)
})

test('an aborted request says the reason it was aborted for, and waits no longer', async () => {
  const { url } = await serve(refusal(503, 'NOT_READY', { 'retry-after': '9' }))
  const signal = AbortSignal.timeout(50)
  await expect(createClient({ url }).sessions.create(body, { signal })).rejects.toMatchObject({ name: 'TimeoutError' })
})

test('lists walk their pages as they are read, with their filters', async () => {
  const { url, seen } = await serve(
    json(200, { sessions: [{ sessionId: 'a' }, { sessionId: 'b' }], nextCursor: 'c1' }),
    json(200, { sessions: [{ sessionId: 'c' }] }),
  )
  const ids: string[] = []
  const filter = { status: 'failed', metadata: { issueId: '1 2' } } as const
  for await (const { sessionId } of createClient({ url }).sessions.list(filter)) ids.push(sessionId)
  expect(ids).toEqual(['a', 'b', 'c'])
  expect(seen.map((one) => one.path)).toEqual([
    '/v1/sessions?status=failed&limit=100&metadata.issueId=1%202',
    '/v1/sessions?status=failed&cursor=c1&limit=100&metadata.issueId=1%202',
  ])
})

test('files go byte for byte, and ids and paths stay within their place', async () => {
  const bytes = Uint8Array.from({ length: 256 }, (_, i) => i)
  const { url, seen } = await serve(
    (response) => response.writeHead(204).end(),
    (response) => response.end(bytes),
  )
  const { files } = createClient({ url }).sessions
  await files.write('a/b', '/tmp/x y&z', 'hello', { mode: '755' })
  expect(seen[0]).toMatchObject({ path: '/v1/sessions/a%2Fb/files?path=%2Ftmp%2Fx+y%26z&mode=755', body: 'hello' })
  expect(seen[0]?.headers['content-type']).toBe('application/octet-stream')
  const read = await new Response(await files.read('a', 'x')).bytes()
  expect(read).toEqual(bytes)
})

test('removing answers nothing and throws nothing', async () => {
  const { url } = await serve((response) => response.writeHead(204).end())
  expect(await createClient({ url }).keys.revoke('org_1', 'key_1')).toBeUndefined()
})
