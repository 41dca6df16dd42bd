import { sql } from 'kysely'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { startTestControlPlane, type TestControlPlane } from '../../../../test/support/control-plane.ts'
import { addSnapshot, request, type TestClaim, workerState } from '../testing/fleet.ts'
import { failWaiting } from './fail-waiting.ts'
import { reapSessions } from './reap.ts'

let plane: TestControlPlane
let worker: string
beforeAll(async () => {
  plane = await startTestControlPlane()
  await addSnapshot(plane.database.db)
  worker = (await plane.enrolWorker(workerState())).credential
  await plane.call('PUT', '/v1/secrets/TOKEN', { body: { value: 'stored-value' } })
})
afterAll(() => plane.close())

interface Shown {
  sessionId: string
  [key: string]: unknown
}

const post = (network: object, more: object = {}) =>
  plane.call('POST', '/v1/sessions', { body: request({ network, ...more }) })
const create = async (network: object = { credentials }, more: object = {}) => {
  const { body } = await plane.call<Shown>('POST', '/v1/sessions', { body: request({ network, ...more }) })
  expect(body).toEqual({ sessionId: expect.any(String), status: 'pending' })
  return body.sessionId
}
const claim = async (sessions = 1) => {
  const wish = { sessions, builds: 0, waitMs: 0 }
  return (await plane.call<{ claims: TestClaim[] }>('POST', '/worker/claim', { key: worker, body: wish })).body.claims
}
const finish = (sessionId: string) => {
  const outcome = { status: 'completed', exitCode: 0, durationMs: 1 }
  const body = { fence: 1, outcome, first: 1, chunks: [] }
  return plane.call('POST', `/worker/sessions/${sessionId}/finish`, { key: worker, body })
}
const sealedOf = async (sessionId: string) => {
  const query = plane.database.db.selectFrom('sessions').select('sealedSecrets').where('id', '=', sessionId)
  return (await query.executeTakeFirstOrThrow()).sealedSecrets
}

const credentials = {
  'API.test': {
    headers: { 'x-api-key': { secret: 'TOKEN' }, Authorization: { secret: 'TOKEN', prefix: 'Bearer ' } },
    placeholders: { BOT_TOKEN: 'given-value' },
    paths: ['/v1/*'],
    methods: ['POST'],
  },
}

test('values are shown as stars, and only the worker that has claimed the session gets them', async () => {
  const id = await create({ allowOut: ['*.Example.com', 'preset:npm'], credentials, auditLog: true })
  const shown = {
    allowOut: ['*.example.com', 'preset:npm'],
    credentials: {
      'api.test': {
        headers: { 'x-api-key': '***', Authorization: '***' },
        placeholders: { BOT_TOKEN: '***' },
        paths: ['/v1/*'],
        methods: ['POST'],
      },
    },
    auditLog: true,
  }
  const got = await plane.call<Shown>('GET', `/v1/sessions/${id}`)
  expect(got.body.network).toEqual(shown)
  const list = await plane.call<{ sessions: Shown[] }>('GET', '/v1/sessions')
  expect(list.body.sessions[0]?.network).toEqual(shown)
  const [claimed] = await claim()
  expect(claimed?.network).toEqual({
    ...shown,
    credentials: {
      'api.test': {
        headers: { 'x-api-key': 'stored-value', Authorization: 'Bearer stored-value' },
        placeholders: { BOT_TOKEN: 'given-value' },
        paths: ['/v1/*'],
        methods: ['POST'],
      },
    },
  })
  await finish(id)
})

test('a session keeps the value of a stored secret that it was created with', async () => {
  await plane.call('PUT', '/v1/secrets/CHANGING', { body: { value: 'first-value' } })
  const id = await create({ credentials: { 'api.test': { headers: { 'x-key': { secret: 'CHANGING' } } } } })
  await plane.call('PUT', '/v1/secrets/CHANGING', { body: { value: 'second-value' } })
  expect((await plane.call('DELETE', '/v1/secrets/CHANGING')).status).toBe(204)
  const [claimed] = await claim()
  expect(claimed?.network.credentials['api.test']?.headers).toEqual({ 'x-key': 'first-value' })
  await finish(id)
})

const header = { headers: { 'x-key': 'value' } }
test.each<[string, object, string, string]>([
  [
    'a stored secret that is none',
    { 'a.test': { headers: { x: { secret: 'NONE' } } } },
    'a.test.headers.x.secret',
    'Stored secret "NONE" does not exist: store it by "paws secrets set NONE" or PUT /v1/secrets/NONE',
  ],
  ['the same host twice', { 'A.test': header, 'a.test': header }, 'a.test', 'A host is named twice'],
  [
    'the same header twice',
    { 'a.test': { headers: { 'X-Key': '1', 'x-key': '2' } } },
    'a.test.headers.x-key',
    'A header is named twice',
  ],
  [
    'a placeholder that is in the environment, too',
    { 'a.test': { placeholders: { HOME: 'x' } } },
    'a.test.placeholders.HOME',
    'Stands in workload.env, too: take it out of one of them',
  ],
  [
    'a placeholder with two values',
    { 'a.test': { placeholders: { T: '1' } }, 'b.test': { placeholders: { T: '2' } } },
    'b.test.placeholders.T',
    'Has another value at another host: give one of them another name',
  ],
  [
    'a value of several lines',
    { 'a.test': { headers: { x: 'a\r\nb: c' } } },
    'a.test.headers.x',
    'Must be one line of characters that a header can hold',
  ],
  [
    'a prefix of several lines',
    { 'a.test': { headers: { x: { secret: 'TOKEN', prefix: 'a\r\nb: ' } } } },
    'a.test.headers.x.prefix',
    'Must be one line of characters that a header can hold',
  ],
  [
    'no value',
    { 'a.test': { headers: { x: 5 } } },
    'a.test.headers.x',
    'Must be a text, or the name of a stored secret as {"secret": NAME}',
  ],
  [
    'a header of the connection',
    { 'a.test': { headers: { Host: 'b.test' } } },
    'a.test.headers.Host',
    'This header belongs to the connection, not to you',
  ],
])('%s is refused by its path', async (_, wrong, path, message) => {
  const { status, body } = await post(
    { credentials: wrong },
    { workload: { type: 'script', script: 'x', env: { HOME: '/' } } },
  )
  expect([status, body.error.code]).toEqual([400, 'VALIDATION_ERROR'])
  expect(body.error.details).toEqual([{ path: `network.credentials.${path}`, message }])
})

const boundTo = (host: string) =>
  `Stored secret "BOUND" is bound to hosts that ${host} is none of: ` +
  'GET /v1/secrets shows its hosts, and PUT /v1/secrets/BOUND stores it with others'

test('a stored secret that is bound to hosts is given to these and no others', async () => {
  await plane.call('PUT', '/v1/secrets/BOUND', { body: { value: 'bound-value', hosts: ['api.test', '*.sub.test'] } })
  const named = { headers: { 'x-key': { secret: 'BOUND' } } }
  const id = await create({ credentials: { 'API.test': named, 'a.b.sub.test': named } })
  const [claimed] = await claim()
  const headers = { 'x-key': 'bound-value' }
  expect(claimed?.network.credentials).toMatchObject({ 'api.test': { headers }, 'a.b.sub.test': { headers } })
  await finish(id)
  for (const host of ['evil.test', 'x.api.test', 'sub.test', 'notsub.test', 'api.test.evil.test']) {
    const { status, body } = await post({ credentials: { 'api.test': named, [host]: named } })
    expect([status, body.error.code]).toEqual([400, 'VALIDATION_ERROR'])
    const path = `network.credentials.${host}.headers.x-key.secret`
    expect(body.error.details).toEqual([{ path, message: boundTo(host) }])
  }
  const inside = await post({ credentials: { 'evil.test': { placeholders: { TOKEN: { secret: 'BOUND' } } } } })
  const path = 'network.credentials.evil.test.placeholders.TOKEN.secret'
  expect(inside.body.error.details).toEqual([{ path, message: boundTo('evil.test') }])
  // A new value alone opens nothing; null does.
  await plane.call('PUT', '/v1/secrets/BOUND', { body: { value: 'new-value' } })
  expect((await post({ credentials: { 'evil.test': named } })).status).toBe(400)
  await plane.call('PUT', '/v1/secrets/BOUND', { body: { value: 'new-value', hosts: null } })
  const freed = await create({ credentials: { 'evil.test': named } })
  await claim()
  await finish(freed)
})

test('values that would be too long together, or too many, are refused, however short they are asked for', async () => {
  await plane.call('PUT', '/v1/secrets/LONG', { body: { value: 'x'.repeat(16_384) } })
  const times = (length: number, value: unknown) => ({
    'a.test': { headers: Object.fromEntries(Array.from({ length }, (_, index) => [`x-${index}`, value])) },
  })
  const long = await post({ credentials: times(5, { secret: 'LONG' }) })
  expect([long.status, long.body.error.code]).toEqual([400, 'VALIDATION_ERROR'])
  expect(long.body.error.details).toEqual([
    { path: 'network.credentials', message: 'All values together are longer than 64 KiB: name fewer' },
  ])
  const many = await post({ credentials: times(201, 'value-of-one') })
  expect([many.status, many.body.error.code]).toEqual([400, 'VALIDATION_ERROR'])
  expect(many.body.error.details).toEqual([
    { path: 'network.credentials', message: 'Has 201 values, and may have 200: name fewer' },
  ])
  for (const most of [times(4, { secret: 'LONG' }), times(200, 'value-of-one')]) {
    const id = await create({ credentials: most })
    await claim()
    await finish(id)
  }
  const paths = Array.from({ length: 100 }, (_, index) => `/${String(index).repeat(400)}`)
  const hosts = Object.fromEntries(['a', 'b', 'c'].map((name) => [`${name}.test`, { ...header, paths }]))
  const wide = await post({ credentials: hosts })
  expect(wide.body.error.message).toContain('network: Longer than 128 KB as JSON')
})

test('however a session ends, its secrets are erased with that', async () => {
  const { db } = plane.database
  const ended: Record<string, string> = {}
  ended.cancelled = await create()
  expect((await sealedOf(ended.cancelled))?.length).toBeGreaterThan(50)
  await plane.call('DELETE', `/v1/sessions/${ended.cancelled}`)

  ended.finished = await create()
  await claim()
  await finish(ended.finished)

  ended.lost = await create()
  await claim()
  await sql`update sessions set lease_expires_at = now() - interval '1 s' where id = ${ended.lost}`.execute(db)
  expect(await reapSessions(db, plane.services)).toBe(1)

  ended.hopeless = await create()
  const build = { jobId: 'build-1', snapshotId: 'gone', template: 'minimal', status: 'failed' }
  await db.insertInto('builds').values(build).execute()
  await db.updateTable('sessions').set({ snapshotId: 'gone' }).where('id', '=', ended.hopeless).execute()
  expect(await failWaiting(db, plane.services)).toBe(1)

  for (const [how, id] of Object.entries(ended)) {
    expect([how, await sealedOf(id)]).toEqual([how, null])
    const { body } = await plane.call<Shown>('GET', `/v1/sessions/${id}`)
    expect(body.network).toMatchObject({ credentials: { 'api.test': { placeholders: { BOT_TOKEN: '***' } } } })
  }
})

test('a session whose secrets can not be opened fails by name, and the others of its claim are handed out', async () => {
  const [first, broken, last] = [await create(), await create(), await create()]
  // As if somebody had put one row's bytes into another.
  const other = await sealedOf(first)
  await plane.database.db.updateTable('sessions').set({ sealedSecrets: other }).where('id', '=', broken).execute()
  expect((await claim(3)).map(({ sessionId }) => sessionId)).toEqual([first, last])
  const { body } = await plane.call<Shown>('GET', `/v1/sessions/${broken}`)
  expect(body).toMatchObject({ status: 'failed', error: { code: 'SECRETS_UNREADABLE' } })
  expect(await sealedOf(broken)).toBe(null)
  const late = await finish(broken)
  expect(late).toMatchObject({ status: 409, body: { error: { code: 'LEASE_LOST' } } })
})
