import { sql } from 'kysely'
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest'
import { callApi, startTestControlPlane, type TestControlPlane } from '../../../../test/support/control-plane.ts'
import { serveHandlers } from '../../../../test/support/http.ts'
import { ApiError } from '../errors.ts'
import type { Reply } from './handler.ts'
import { forgetOldAnswers } from './index.ts'

let plane: TestControlPlane
let server: Awaited<ReturnType<typeof serveHandlers>>
/** What the operation does next; counts how often it was run. */
let behave: () => Promise<Reply>
let runs = 0
beforeAll(async () => {
  plane = await startTestControlPlane()
  server = await serveHandlers(plane.services, {
    createOrganization: () => {
      runs++
      return behave()
    },
    buildSnapshot: async ({ params }) => ({ status: 202, json: { snapshotId: params.snapshotId, run: ++runs } }),
  })
})
afterAll(async () => {
  await server.close()
  await plane.close()
})
afterEach(() => plane.database.db.deleteFrom('idempotencyKeys').execute())

const made = async (): Promise<Reply> => ({ status: 201, json: { secret: `made ${runs}` } })
const post = <T = object>(idempotencyKey: string, body: unknown = { name: 'x' }, key = plane.key) =>
  callApi<T>(`${server.url}/v1/orgs`, 'POST', { key, body, headers: { 'idempotency-key': idempotencyKey } })

test('the same request again gets the first answer, marked as a replay, and nothing runs', async () => {
  behave = made
  const first = await post('a')
  const before = runs
  const again = await post('a')
  expect(again).toMatchObject({ status: 201, body: first.body })
  expect(first.headers.get('idempotent-replayed')).toBe(null)
  expect(again.headers.get('idempotent-replayed')).toBe('true')
  expect(runs).toBe(before)
  expect((await post('b')).body).not.toEqual(first.body)
})

test('another body with the same key is 422, and another path is too', async () => {
  behave = made
  await post('a')
  expect(await post('a', { name: 'y' })).toMatchObject({
    status: 422,
    body: { error: { code: 'IDEMPOTENCY_CONFLICT' } },
  })
  const build = (id: string) =>
    callApi(`${server.url}/v1/snapshots/${id}/build`, 'POST', { key: plane.key, headers: { 'idempotency-key': 'a' } })
  expect((await build('node')).status).toBe(202)
  expect((await build('python')).status).toBe(422)
})

test('of requests at once one runs, the others are told that it is in flight', async () => {
  const { promise: gate, resolve: go } = Promise.withResolvers<void>()
  behave = async () => {
    await gate
    return made()
  }
  const before = runs
  const first = post('a')
  await expect.poll(() => runs).toBe(before + 1)
  const others = await Promise.all([post('a'), post('a')])
  for (const other of others) {
    expect(other).toMatchObject({ status: 409, body: { error: { code: 'IDEMPOTENCY_CONFLICT' } } })
    expect(other.headers.get('retry-after')).toBe('1')
  }
  go()
  expect((await first).status).toBe(201)
  expect(runs).toBe(before + 1)
})

test('a refusal is kept, a failure of ours is not', async () => {
  behave = async () => {
    throw new ApiError('SNAPSHOT_NOT_FOUND', `refused ${runs}`)
  }
  const refused = await post<{ error: { requestId: string; message: string } }>('a')
  const again = await post<{ error: { requestId: string; message: string } }>('a')
  expect(again.headers.get('idempotent-replayed')).toBe('true')
  expect(again.body.error.message).toBe(refused.body.error.message)
  expect(again.body.error.requestId).toBe(again.headers.get('x-request-id'))

  behave = async () => {
    throw new Error('broken')
  }
  expect((await post('b')).status).toBe(500)
  behave = async () => {
    throw new ApiError('CAPACITY_EXHAUSTED', 'full')
  }
  expect((await post('b')).status).toBe(503)
  behave = made
  expect((await post('b')).status).toBe(201)
})

test('what died in flight blocks its key for a minute only, and only for the same request', async () => {
  behave = made
  await post('a')
  const { db } = plane.database
  await db
    .updateTable('idempotencyKeys')
    .set({ status: null, sealedAnswer: null, createdAt: sql`now() - interval '50 seconds'` })
    .execute()
  expect((await post('a')).status).toBe(409)
  await db.updateTable('idempotencyKeys').set({ createdAt: sql`now() - interval '61 seconds'` }).execute()
  expect((await post('a', { name: 'other' })).status).toBe(422)
  expect((await post('a')).status).toBe(201)
})

test('keys belong to an API key, and are forgotten after a day', async () => {
  behave = made
  const first = await post('a')
  const other = await plane.call<{ apiKey: { key: string } }>('POST', '/v1/orgs', { body: { name: 'other' } })
  const { key } = (
    await plane.call<{ key: string }>('POST', `/v1/orgs/${plane.orgId}/api-keys`, { body: { name: 'second' } })
  ).body
  expect(other.status).toBe(201)
  expect((await post('a', { name: 'x' }, key)).body).not.toEqual(first.body)
  const { db } = plane.database
  await db.updateTable('idempotencyKeys').set({ createdAt: sql`now() - interval '25 hours'` }).execute()
  expect((await post('a')).headers.get('idempotent-replayed')).toBe(null)
  await forgetOldAnswers({ db })
  expect(await db.selectFrom('idempotencyKeys').select('key').execute()).toHaveLength(1)
})

test('nothing of body or answer can be read in the database', async () => {
  behave = made
  await post('a', { name: 'body to hide' })
  const { rows } = await sql<{ row: string }>`select encode(sealed_answer, 'escape') || encode(request_digest, 'escape')
    || k::text as row from idempotency_keys k`.execute(plane.database.db)
  expect(rows).toHaveLength(1)
  expect(rows[0]?.row).not.toMatch(/made \d|body to hide/)
})

test.each(['', 'x'.repeat(256), 'ключ'])('the key "%s" is none', async (idempotencyKey) => {
  const answer = await fetch(`${server.url}/v1/orgs`, {
    method: 'POST',
    headers: {
      authorization: `Bearer ${plane.key}`,
      'content-type': 'application/json',
      'idempotency-key': Buffer.from(idempotencyKey).toString('latin1'),
    },
    body: '{"name":"x"}',
  })
  expect(answer.status).toBe(400)
  expect(await answer.json()).toMatchObject({ error: { details: [{ path: 'Idempotency-Key' }] } })
})
