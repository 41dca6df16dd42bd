import { afterAll, beforeAll, expect, test } from 'vitest'
import { startTestControlPlane, type TestControlPlane } from '../../../../test/support/control-plane.ts'
import { addSnapshot, request, type TestClaim, workerState } from '../testing/fleet.ts'

let plane: TestControlPlane
beforeAll(async () => {
  plane = await startTestControlPlane()
  await addSnapshot(plane.database.db)
})
afterAll(() => plane.close())

interface Enrolled {
  workerId: string
  name: string
  credential: string
}

const makeToken = async (body: object = {}) => {
  const made = await plane.call<{ token: string; expiresAt: string }>('POST', '/v1/fleet/enrolment-tokens', { body })
  expect(made.status).toBe(201)
  return made.body.token
}
const enrolWith = (token: string, name = 'worker', state = workerState()) =>
  plane.call<Enrolled>('POST', '/worker/enrol', { key: token, body: { name, state } })
const enrol = async (name?: string, state = workerState()) => (await enrolWith(await makeToken(), name, state)).body
const beat = (key: string, held: object[] = []) =>
  plane.call<{ leaseMs: number; lost: string[]; cancel: string[]; draining: boolean }>('POST', '/worker/heartbeat', {
    key,
    body: { state: workerState(), held },
  })
const claim = async (key: string) => {
  const body = { sessions: 1, builds: 0, waitMs: 0 }
  return (await plane.call<{ claims: TestClaim[] }>('POST', '/worker/claim', { key, body })).body.claims
}

test('a token enrols one worker, once, and is kept only as a digest', async () => {
  const token = await makeToken()
  const both = await Promise.all([enrolWith(token, 'twice'), enrolWith(token, 'twice')])
  expect(both.map(({ status }) => status).sort()).toEqual([201, 401])
  expect((await enrolWith(token)).status).toBe(401)
  const { db } = plane.database
  const rows = [
    ...(await db.selectFrom('enrolmentTokens').selectAll().execute()),
    ...(await db.selectFrom('workers').selectAll().execute()),
  ]
  const credential = both.find(({ status }) => status === 201)?.body.credential ?? ''
  for (const secret of [token, credential]) {
    expect(secret.length).toBeGreaterThan(40)
    expect(JSON.stringify(rows)).not.toContain(secret)
  }
})

test('a token ends with its time', async () => {
  const token = await makeToken({ expiresInMs: 1000 })
  await plane.database.db.updateTable('enrolmentTokens').set({ expiresAt: new Date() }).execute()
  expect((await enrolWith(token)).status).toBe(401)
})

test('a name that is taken gets a number behind it, within the length of a host label', async () => {
  const long = `a${'b'.repeat(62)}`
  expect((await enrol(long)).name).toBe(long)
  expect((await enrol(long)).name).toBe(`${long.slice(0, 61)}-2`)
  expect((await enrol('same')).name).toBe('same')
  expect((await enrol('same')).name).toBe('same-2')
  expect((await enrol('same')).name).toBe('same-3')
})

test('a heartbeat renews leases, and says what is lost, cancelled and draining', async () => {
  const worker = await enrol('beating')
  const created = await plane.call<{ sessionId: string }>('POST', '/v1/sessions', { body: request() })
  const id = created.body.sessionId
  const [claimed] = await claim(worker.credential)
  expect(claimed).toMatchObject({ sessionId: id, fence: 1 })
  const { db } = plane.database
  const lease = () => db.selectFrom('sessions').select('leaseExpiresAt').where('id', '=', id).executeTakeFirstOrThrow()
  const before = await lease()
  const held = { kind: 'session', id, fence: 1 }
  const strange = ['0198c5f2-a1b7-7d3c-9e51-000000000000', 'no-uuid'].map((other) => ({ ...held, id: other }))
  const first = await beat(worker.credential, [held, ...strange])
  expect(first.body).toEqual({
    leaseMs: 150_000,
    lost: strange.map((other) => other.id),
    cancel: [],
    draining: false,
  })
  expect(Number((await lease()).leaseExpiresAt)).toBeGreaterThan(Number(before.leaseExpiresAt))

  // Another worker, or an older claim, renews nothing.
  const other = await enrol('stranger')
  expect((await beat(other.credential, [held])).body.lost).toEqual([id])
  expect((await beat(worker.credential, [{ ...held, fence: 2 }])).body.lost).toEqual([id])

  await db.updateTable('sessions').set({ cancelRequestedAt: new Date() }).where('id', '=', id).execute()
  await plane.call('POST', `/v1/fleet/workers/${worker.name}/drain`)
  expect((await beat(worker.credential, [held])).body).toMatchObject({ cancel: [id], draining: true, lost: [] })
})

test('workers are listed by name with what they run; silence makes them unhealthy', async () => {
  const { name, workerId } = await enrol('aa-first')
  const list = await plane.call<{ workers: { name: string }[] }>('GET', '/v1/fleet/workers')
  expect(list.body.workers[0]).toMatchObject({ name, status: 'healthy', capacity: { max: 5, running: 0 } })
  const { db } = plane.database
  await db
    .updateTable('workers')
    .set({ lastSeenAt: new Date(Date.now() - 31_000) })
    .where('id', '=', workerId)
    .execute()
  expect((await plane.call('GET', `/v1/fleet/workers/${name}`)).body).toMatchObject({ status: 'unhealthy' })
})

test('a drained worker gets nothing until that is taken back; either twice is refused with the reason', async () => {
  const worker = await enrol('drained')
  expect((await plane.call('POST', `/v1/fleet/workers/${worker.name}/drain`)).body).toMatchObject({
    status: 'draining',
  })
  const again = await plane.call('POST', `/v1/fleet/workers/${worker.name}/drain`)
  expect(again.status).toBe(409)
  expect(again.body.error).toMatchObject({
    code: 'INVALID_STATE',
    details: [{ current: 'draining', allowed: ['healthy', 'unhealthy'] }],
  })
  await plane.call('POST', '/v1/sessions', { body: request() })
  expect(await claim(worker.credential)).toEqual([])
  const undrain = () => plane.call('POST', `/v1/fleet/workers/${worker.name}/undrain`)
  expect((await undrain()).body).toMatchObject({ status: 'healthy' })
  const needless = await undrain()
  expect([needless.status, needless.body.error.code]).toEqual([409, 'INVALID_STATE'])
  expect(needless.body.error).toMatchObject({ details: [{ current: 'healthy', allowed: ['draining', 'unhealthy'] }] })
  expect(await claim(worker.credential)).toHaveLength(1)
  await plane.call('POST', '/v1/sessions', { body: request() })
})

test("a removed worker's credential ends at once", async () => {
  const worker = await enrol('removed')
  expect((await beat(worker.credential)).status).toBe(200)
  expect((await plane.call('DELETE', `/v1/fleet/workers/${worker.name}`)).status).toBe(204)
  expect((await beat(worker.credential)).status).toBe(401)
  for (const method of ['GET', 'DELETE']) {
    const gone = await plane.call(method, `/v1/fleet/workers/${worker.name}`)
    expect([gone.status, gone.body.error.code]).toEqual([404, 'WORKER_NOT_FOUND'])
  }
  expect((await plane.call('GET', '/v1/fleet/workers/%00')).status).toBe(404)
})

test("the fleet's numbers add up", async () => {
  const { body } = await plane.call<Record<string, number>>('GET', '/v1/fleet')
  const { body: list } = await plane.call<{ workers: { capacity: { max: number } }[] }>('GET', '/v1/fleet/workers')
  expect(body.totalWorkers).toBe(list.workers.length)
  expect(body.totalCapacity).toBe(list.workers.reduce((sum, { capacity }) => sum + capacity.max, 0))
  expect(body).toMatchObject({ usedCapacity: 2, activeSessions: 2, queuedSessions: 1, activeDaemons: 0 })
})

test('the fleet is the operator’s: other organizations are refused', async () => {
  const { key } = await plane.otherOrganization()
  expect((await plane.call('GET', '/v1/fleet', { key })).status).toBe(403)
})

test('output and end of a session are refused under a lease that is not its own', async () => {
  const worker = await enrol('stale')
  await plane.call('POST', '/v1/sessions', { body: request() })
  const [taken] = (await claim(worker.credential)) as { sessionId: string; fence: number }[]
  const outcome = { status: 'completed', exitCode: 0, durationMs: 1 }
  const body = { fence: (taken?.fence ?? 0) + 1, outcome, first: 1, chunks: [] }
  const path = `/worker/sessions/${taken?.sessionId}/finish`
  const late = await plane.call('POST', path, { key: worker.credential, body })
  expect([late.status, late.body.error.code]).toEqual([409, 'LEASE_LOST'])
  const output = { fence: body.fence, first: 1, chunks: [] }
  const said = await plane.call('POST', `/worker/sessions/${taken?.sessionId}/output`, {
    key: worker.credential,
    body: output,
  })
  expect([said.status, said.body.error.code]).toEqual([409, 'LEASE_LOST'])
})
