import pino from 'pino'
import { afterAll, beforeAll, expect, test, vi } from 'vitest'
import { type TestDatabase, testDatabase } from '../../../../test/support/database.ts'
import {
  addOrganization,
  addSnapshot,
  addWorker,
  claimOne,
  creating,
  openAftermath,
  request,
} from '../testing/fleet.ts'
import { createSession } from './create.ts'
import { failWaiting } from './fail-waiting.ts'
import { finishSession } from './finish.ts'
import { getSession } from './get.ts'
import { type Lease, storeOutput } from './output.ts'
import { reapSessions, startReaper } from './reap.ts'
import { sessionSubject } from './session.ts'

let database: TestDatabase
let aftermath: Awaited<ReturnType<typeof openAftermath>>
let org: string
let workerId: string
beforeAll(async () => {
  database = await testDatabase()
  aftermath = await openAftermath(database)
  org = await addOrganization(database.db)
  await addSnapshot(database.db)
  workerId = await addWorker(database.db)
})
afterAll(async () => {
  await aftermath.close()
  await database.close()
})

async function create(differing: object = {}): Promise<string> {
  const options = await creating(database.db)
  return (await createSession(database.db, org, request(differing), options)).sessionId
}

async function startSession(differing: object = {}): Promise<Lease> {
  await create(differing)
  const { sessionId, fence } = await claimOne(database.db, workerId)
  return { sessionId, workerId, fence }
}

const report = (differing: object = {}) => ({
  outcome: { status: 'completed' as const, exitCode: 0, durationMs: 1500, ...differing },
  first: 1,
  chunks: [{ stream: 'stdout' as const, data: Buffer.from('last words') }],
})

const finish = (lease: Lease, said = report()) => finishSession(database.db, aftermath, lease, said)
const get = (lease: { sessionId: string }) => getSession(database.db, org, lease.sessionId)
const eventsOf = async ({ sessionId }: { sessionId: string }) => {
  const rows = await database.db
    .selectFrom('events')
    .selectAll()
    .where('subject', '=', sessionSubject(sessionId))
    .orderBy('seq')
    .execute()
  return rows.map(({ seq, type, data }) => ({ seq, type, text: data.toString() }))
}
const expire = ({ sessionId }: Lease) =>
  database.db
    .updateTable('sessions')
    .set({ leaseExpiresAt: new Date(Date.now() - 1) })
    .where('id', '=', sessionId)
    .execute()

test('the end brings status, usage, the last output, the result and the last events together', async () => {
  const lease = await startSession()
  const output = { answer: [1, 'a\0b', '\ud800'] }
  expect(await finish(lease, report({ output }))).toEqual({ status: 'completed' })
  const session = await get(lease)
  expect(session).toMatchObject({ status: 'completed', exitCode: 0, stdout: 'last words', output })
  expect(session).toMatchObject({ durationMs: 1500, vcpuSeconds: 3, isolation: 'process' })
  const events = await eventsOf(lease)
  expect(events.map(({ type }) => type)).toEqual(['status', 'status', 'stdout', 'status', 'done'])
  const { stdout: _, stderr: __, ...rest } = session
  expect(JSON.parse(events.at(-1)?.text ?? '')).toEqual(JSON.parse(JSON.stringify(rest)))
})

test('the same report again, many times at once, is acknowledged and changes nothing', async () => {
  const lease = await startSession({ callbackUrl: 'http://127.0.0.1:1/' })
  const answers = await Promise.all(Array.from({ length: 5 }, () => finish(lease)))
  expect(answers).toEqual(Array(5).fill({ status: 'completed' }))
  // Another outcome under the same lease comes too late to count.
  expect(await finish(lease, report({ status: 'failed', exitCode: 3 }))).toEqual({ status: 'completed' })
  expect(await get(lease)).toMatchObject({ status: 'completed', exitCode: 0, stdout: 'last words' })
  expect(await eventsOf(lease)).toHaveLength(5)
  const deliveries = await database.db
    .selectFrom('deliveries')
    .selectAll()
    .where('sessionId', '=', lease.sessionId)
    .execute()
  expect(deliveries).toHaveLength(1)
})

test('output after the end is refused', async () => {
  const lease = await startSession()
  await finish(lease)
  const late = storeOutput(database.db, lease, 2, [{ stream: 'stdout', data: Buffer.from('more') }])
  await expect(late).rejects.toMatchObject({ code: 'LEASE_LOST' })
})

test('a report with missing pieces settles nothing', async () => {
  const lease = await startSession()
  await expect(finish(lease, { ...report(), first: 2 })).rejects.toMatchObject({ code: 'CONFLICT' })
  expect(await get(lease)).toMatchObject({ status: 'running', stdout: '' })
})

test('a session whose lease has ended is failed as WORKER_LOST, and its late report is refused', async () => {
  const lease = await startSession()
  await expire(lease)
  expect(await reapSessions(database.db, aftermath)).toBe(1)
  await expect(finish(lease)).rejects.toMatchObject({ code: 'LEASE_LOST' })
  const session = await get(lease)
  expect(session).toMatchObject({ status: 'failed', error: { code: 'WORKER_LOST' }, stdout: '' })
  expect(session.exitCode).toBeUndefined()
  expect((await eventsOf(lease)).map(({ type }) => type)).toEqual(['status', 'status', 'status', 'done'])
  // It had started: nobody gets it again.
  expect(await reapSessions(database.db, aftermath)).toBe(0)
  await expect(claimOne(database.db, workerId)).rejects.toThrow('nothing to claim')
})

test('of a late report and a reaper at the same moment exactly one wins', async () => {
  for (let round = 0; round < 10; round++) {
    const lease = await startSession()
    await expire(lease)
    const [reported] = await Promise.allSettled([finish(lease), reapSessions(database.db, aftermath)])
    const { status } = await get(lease)
    expect(status).toBe(reported.status === 'fulfilled' ? 'completed' : 'failed')
    expect((await eventsOf(lease)).filter(({ type }) => type === 'done')).toHaveLength(1)
  }
})

test('the reaper begins one full lease after it was opened', async () => {
  const lease = await startSession()
  await expire(lease)
  const leaseMs = 1500
  const opened = performance.now()
  const log = pino({ level: 'silent' })
  const reaper = startReaper(database.db, aftermath, { leaseMs, everyMs: 50, log })
  try {
    await vi.waitFor(async () => expect((await get(lease)).status).toBe('failed'), { timeout: 10_000, interval: 50 })
    expect(performance.now() - opened).toBeGreaterThanOrEqual(leaseMs)
  } finally {
    await reaper.close()
  }
})

test('sessions that wait for a snapshot fail, with the reason, once its build has failed', async () => {
  await database.db.updateTable('snapshots').set({ id: 'elsewhere' }).execute()
  try {
    const sessionId = await create()
    expect(await failWaiting(database.db, aftermath)).toBe(0)
    await database.db.updateTable('builds').set({ status: 'failed', error: 'no network' }).execute()
    expect(await failWaiting(database.db, aftermath)).toBe(1)
    const session = await get({ sessionId })
    expect(session).toMatchObject({ status: 'failed', error: { code: 'SNAPSHOT_BUILD_FAILED' } })
    expect(session.error?.message).toMatch(/^Snapshot "minimal" could not be built \(build-.*: no network$/)
    const [first] = await eventsOf({ sessionId })
    expect(first?.text).toMatch(/not built yet; waiting for build-/)
  } finally {
    await database.db.updateTable('snapshots').set({ id: 'minimal' }).execute()
  }
})
