import { afterAll, beforeAll, expect, test, vi } from 'vitest'
import { startTestControlPlane, type TestControlPlane } from '../../../../test/support/control-plane.ts'
import { addSnapshot, request, type TestClaim, workerState } from '../testing/fleet.ts'
import { listSessions } from './list.ts'

let plane: TestControlPlane
let worker: string
beforeAll(async () => {
  plane = await startTestControlPlane({ env: { PAWS_QUEUE_LIMIT: '8' } })
  await addSnapshot(plane.database.db)
})
afterAll(() => plane.close())

interface Shown {
  sessionId: string
  status: string
  [key: string]: unknown
}

const create = async (differing: object = {}, key = plane.key) => {
  const made = await plane.call<Shown>('POST', '/v1/sessions', { body: request(differing), key })
  expect(made.body).toEqual({ sessionId: expect.any(String), status: 'pending' })
  return made.body.sessionId
}
const refused = async (differing: object) => {
  const { status, headers, body } = await plane.call('POST', '/v1/sessions', { body: request(differing) })
  return { status, retryAfter: headers.get('retry-after'), ...body.error }
}
const get = async (id: string) => (await plane.call<Shown>('GET', `/v1/sessions/${id}`)).body
const cancel = (id: string) => plane.call<Shown>('DELETE', `/v1/sessions/${id}`)
const asWorker = <T>(path: string, body: object) => plane.call<T>('POST', `/worker/${path}`, { key: worker, body })
const claim = async () => {
  const { body } = await asWorker<{ claims: TestClaim[] }>('claim', { sessions: 1, builds: 0, waitMs: 0 })
  if (!body.claims[0]) throw new Error('There was nothing to claim')
  return body.claims[0]
}
const finish = ({ sessionId, fence }: TestClaim, differing: object = {}) => {
  const outcome = { status: 'completed', exitCode: 0, durationMs: 1, ...differing }
  return asWorker(`sessions/${sessionId}/finish`, { fence, outcome, first: 1, chunks: [] })
}

test('without any worker nothing could ever run it', async () => {
  expect(await refused({})).toMatchObject({
    status: 503,
    code: 'CAPACITY_EXHAUSTED',
    message: 'No worker is enrolled that could run it: make a token and join one.',
    retryAfter: '60',
  })
  worker = (await plane.enrolWorker(workerState(), 'worker-1')).credential
})

test('what no worker could ever run is refused with the reason', async () => {
  expect(await refused({ isolation: 'vm' })).toMatchObject({
    status: 503,
    message: 'No worker can run microVMs: ask for isolation "any", or join a worker whose host can.',
  })
  expect(await refused({ resources: { vcpus: 2, memoryMB: 16_384 } })).toMatchObject({
    status: 503,
    message: 'No worker is large enough for 2 vcpus and 16384 MB of memory: the largest have 4 vcpus and 8192 MB.',
  })
})

test.each(['nod', '../minimal', 'Minimal'])(
  'an unknown snapshot %j is not found, naming the ready ones',
  async (snapshot) => {
    const { status, code, message } = await refused({ snapshot })
    expect([status, code]).toEqual([404, 'SNAPSHOT_NOT_FOUND'])
    expect(message).toContain('Ready ones: minimal.')
  },
)

test('a callback URL that is not public https is refused when it is stored', async () => {
  const refusal = await refused({ callbackUrl: 'https://10.0.0.1/hook' })
  expect(refusal).toMatchObject({ status: 400, code: 'VALIDATION_ERROR' })
  expect(refusal.details).toEqual([{ path: 'callbackUrl', message: '10.0.0.1 is not a public address (private)' }])
})

test('one full course: pending, running with growing output, completed, replayed by events', async () => {
  const id = await create({ metadata: { run: 'full' } })
  expect(await get(id)).toMatchObject({ status: 'pending', stdout: '', stderr: '', metadata: { run: 'full' } })
  const claimed = await claim()
  expect(claimed.sessionId).toBe(id)
  const chunks = [{ stream: 'stdout', data: Buffer.from('hello\n').toString('base64') }]
  const reported = await asWorker(`sessions/${id}/output`, { fence: 1, first: 1, chunks })
  expect([reported.status, reported.body]).toEqual([200, { stored: 1 }])
  expect(await get(id)).toMatchObject({ status: 'running', stdout: 'hello\n', worker: 'worker-1' })
  const outcome = { status: 'completed', exitCode: 0, durationMs: 250, output: { ok: true } }
  const ended = await asWorker(`sessions/${id}/finish`, { fence: 1, outcome, first: 2, chunks: [] })
  expect([ended.status, ended.body]).toEqual([200, { status: 'completed' }])
  expect(await get(id)).toMatchObject({ status: 'completed', vcpuSeconds: 0.5, output: { ok: true } })

  const stream = (headers: Record<string, string> = {}) =>
    plane.call<string>('GET', `/v1/sessions/${id}/events`, { headers })
  const names = (text: string) =>
    [...text.matchAll(/^id: (\d+)\nevent: (\w+)$/gm)].map(([, seq, name]) => `${seq} ${name}`)
  const all = ['1 status', '2 status', '3 stdout', '4 status', '5 done']
  expect(names((await stream()).body)).toEqual(all)
  expect(names((await stream({ 'last-event-id': '3' })).body)).toEqual(all.slice(3))
  expect(names((await stream({ 'last-event-id': '5' })).body)).toEqual([])
  expect((await stream({ 'last-event-id': 'x' })).status).toBe(400)
  expect((await plane.call<string>('GET', `/v1/sessions/${id}/logs`)).body).toBe('hello\n')
})

test('a follower sees each event as it is committed', async () => {
  const id = await create()
  const response = await fetch(`${plane.url}/v1/sessions/${id}/events`, { headers: { 'x-api-key': plane.key } })
  const reader = response.body?.pipeThrough(new TextDecoderStream()).getReader()
  let seen = ''
  const read = async (until: string) => {
    while (!seen.includes(until)) seen += (await reader?.read())?.value ?? ''
  }
  await read('"pending"')
  const claimed = await claim()
  await read('"running"')
  await finish(claimed, { status: 'failed', exitCode: 3 })
  await read('event: done')
  expect(seen).toContain('"status":"failed","snapshot":"minimal","exitCode":3')
})

test('a pending session is cancelled at once and never runs', async () => {
  const id = await create()
  expect((await cancel(id)).body).toEqual({ sessionId: id, status: 'cancelled' })
  expect(await get(id)).toMatchObject({ status: 'cancelled' })
  await expect(claim()).rejects.toThrow('nothing to claim')
  // One that had ended keeps its status.
  expect((await cancel(id)).body).toEqual({ sessionId: id, status: 'cancelled' })
})

test('the cancelling of a running session answers when its worker has reported the end', async () => {
  const id = await create()
  const claimed = await claim()
  let answered = false
  const cancelling = cancel(id).finally(() => {
    answered = true
  })
  // No tunnel is open here: the heartbeat brings the wish.
  const held = [{ kind: 'session', id, fence: 1 }]
  await vi.waitFor(async () => {
    const { body } = await asWorker<{ cancel: string[] }>('heartbeat', { state: workerState(), held })
    expect(body.cancel).toEqual([id])
  })
  expect(answered).toBe(false)
  await finish(claimed, { status: 'cancelled', exitCode: 143 })
  expect((await cancelling).body).toEqual({ sessionId: id, status: 'cancelled' })
})

test('the queue of an organization has a limit', async () => {
  const ids = []
  for (let count = 0; count < 8; count++) ids.push(await create())
  expect(await refused({})).toMatchObject({ status: 503, code: 'CAPACITY_EXHAUSTED', retryAfter: '5' })
  // Another organization's is its own.
  const { key } = await plane.otherOrganization()
  const other = await create({}, key)
  await plane.call('DELETE', `/v1/sessions/${other}`, { key })
  for (const id of ids) await cancel(id)
})

test('lists: newest first, in pages, by status and by metadata', async () => {
  const ids = []
  for (const team of ['a', 'b', 'a', 'b', 'a'])
    ids.push(await create({ metadata: { team, number: 7, deep: { x: 1 } } }))
  await cancel(String(ids[0]))
  type List = { sessions: Shown[]; nextCursor?: string }
  const list = async (query: string) => (await plane.call<List>('GET', `/v1/sessions?${query}`)).body
  const idsOf = async (query: string) => (await list(query)).sessions.map(({ sessionId }) => sessionId)
  expect(await idsOf('metadata.team=a')).toEqual([ids[4], ids[2], ids[0]])
  expect(await idsOf('metadata.team=a&metadata.number=7&status=pending')).toEqual([ids[4], ids[2]])
  expect(await idsOf('metadata.deep=x')).toEqual([])
  const first = await list('metadata.number=7&limit=2')
  const second = await list(`metadata.number=7&limit=2&cursor=${first.nextCursor}`)
  const third = await list(`metadata.number=7&limit=2&cursor=${second.nextCursor}`)
  const paged = [first, second, third].flatMap(({ sessions }) => sessions.map(({ sessionId }) => sessionId))
  expect(paged).toEqual(ids.toReversed())
  expect(third.nextCursor).toBeUndefined()
  for (const sessions of [first.sessions]) expect(Object.keys(sessions[0] ?? {})).not.toContain('stdout')
  for (const id of ids) await cancel(id)
})

test.each(['colour=red', 'cursor=x', 'limit=0', 'status=gone', 'metadatateam=a'])(
  'the query %s is refused by name',
  async (query) => {
    const { status, body } = await plane.call('GET', `/v1/sessions?${query}`)
    expect([status, body.error.code]).toEqual([400, 'VALIDATION_ERROR'])
    expect(body.error.details?.map(({ path }) => path)).toEqual([query.split('=')[0]])
  },
)

test('more than ten metadata filters are refused', async () => {
  const query = Array.from({ length: 11 }, (_, index) => `metadata.k${index}=1`).join('&')
  expect((await plane.call('GET', `/v1/sessions?${query}`)).status).toBe(400)
})

test('metadata of any JSON comes back as it came, and can be filtered by', async () => {
  const metadata = {
    'nul\0key': 'nul\0value',
    lone: '\ud800',
    '\udfff': true,
    'back\\slash "quote"': '\\u0000',
    empty: '',
    nothing: null,
    deep: [{ 'a\0': ['\ud800\0'] }],
    number: 1e300,
  }
  const id = await create({ metadata })
  expect((await get(id)).metadata).toEqual(metadata)
  // A query can't hold NUL; what is stored is compared exactly all the same.
  const found = async (key: string, value: string) => {
    const { sessions } = await listSessions(plane.database.db, plane.orgId, { limit: 50, [`metadata.${key}`]: value })
    return sessions.map(({ sessionId }) => sessionId)
  }
  expect(await found('nul\0key', 'nul\0value')).toEqual([id])
  expect(await found('back\\slash "quote"', '\\u0000')).toEqual([id])
  expect(await found('back\\slash "quote"', '\0')).toEqual([])
  expect(await found('empty', '')).toEqual([id])
  expect(await found('nothing', 'null')).toEqual([id])
  await cancel(id)
})

test("another organization's session is not found, nor is what is no id", async () => {
  const id = await create()
  const { key } = await plane.otherOrganization()
  for (const path of [id, 'x', '%00', '0198c5f2-a1b7-7d3c-9e51-000000000000']) {
    for (const [method, rest] of [
      ['GET', ''],
      ['DELETE', ''],
      ['GET', '/events'],
      ['GET', '/logs'],
    ]) {
      const { status, body } = await plane.call(String(method), `/v1/sessions/${path}${rest}`, { key })
      expect([status, body.error.code]).toEqual([404, 'SESSION_NOT_FOUND'])
    }
  }
  expect((await plane.call<{ sessions: Shown[] }>('GET', '/v1/sessions', { key })).body.sessions).toEqual([])
  await cancel(id)
})

test('a long output is archived by itself and still read as before', async () => {
  const id = await create()
  const { fence } = await claim()
  const data = Buffer.alloc(512 * 1024, 'line of output\n').toString('base64')
  for (let first = 1; first <= 6; first++) {
    await asWorker(`sessions/${id}/output`, { fence, first, chunks: [{ stream: 'stdout', data }] })
  }
  const outcome = { status: 'completed', exitCode: 0, durationMs: 1 }
  await asWorker(`sessions/${id}/finish`, { fence, outcome, first: 7, chunks: [] })
  const { db } = plane.database
  const read = () => db.selectFrom('sessions').select('archivedAt').where('id', '=', id).executeTakeFirstOrThrow()
  await vi.waitFor(async () => expect((await read()).archivedAt).not.toBeNull(), { timeout: 15_000, interval: 50 })
  const { body } = await plane.call<string>('GET', `/v1/sessions/${id}/logs`)
  expect(body).toBe(Buffer.from(data, 'base64').toString().repeat(6))
  expect(await get(id)).toMatchObject({ truncated: true, stdout: body.slice(-1024 * 1024) })
})
