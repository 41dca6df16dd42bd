import { randomUUID } from 'node:crypto'
import { cutMarker, streamLimitBytes } from '@paws/api'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { type TestDatabase, testDatabase } from '../../../../test/support/database.ts'
import { addOrganization, addSnapshot, addWorker, claimOne, creating, request } from '../testing/fleet.ts'
import { createSession } from './create.ts'
import { findSession, getSession } from './get.ts'
import { type Chunk, type Lease, storeOutput } from './output.ts'
import { inlineBytes, sessionSubject } from './session.ts'

let database: TestDatabase
let org: string
let workerId: string
beforeAll(async () => {
  database = await testDatabase()
  org = await addOrganization(database.db)
  await addSnapshot(database.db)
  workerId = await addWorker(database.db)
})
afterAll(() => database.close())

async function startSession(): Promise<Lease> {
  await createSession(database.db, org, request(), await creating(database.db))
  const { sessionId, fence } = await claimOne(database.db, workerId)
  return { sessionId, workerId, fence }
}

const out = (text: string): Chunk => ({ stream: 'stdout', data: Buffer.from(text) })
const err = (text: string): Chunk => ({ stream: 'stderr', data: Buffer.from(text) })
const store = (lease: Lease, first: number, chunks: Chunk[]) => storeOutput(database.db, lease, first, chunks)
const get = (lease: Lease) => getSession(database.db, org, lease.sessionId)

test('pieces already stored are passed over, whole reports and overlapping ones', async () => {
  const lease = await startSession()
  expect(await store(lease, 1, [out('a'), err('b')])).toBe(2)
  expect(await store(lease, 1, [out('a'), err('b')])).toBe(2)
  expect(await store(lease, 2, [err('b'), out('c'), out('d')])).toBe(4)
  expect(await store(lease, 1, [])).toBe(4)
  expect(await get(lease)).toMatchObject({ status: 'running', stdout: 'acd', stderr: 'b' })
})

test('the same report many times at once is stored once, and events count without gaps', async () => {
  const lease = await startSession()
  const report = Array.from({ length: 20 }, (_, index) => out(`${index};`))
  expect(await Promise.all(Array.from({ length: 6 }, () => store(lease, 1, report)))).toEqual(Array(6).fill(20))
  const rows = await database.db
    .selectFrom('events')
    .select(['seq', 'type'])
    .where('subject', '=', sessionSubject(lease.sessionId))
    .orderBy('seq')
    .execute()
  expect(rows.map(({ seq }) => seq)).toEqual(Array.from({ length: 22 }, (_, index) => index + 1))
  expect(rows.slice(0, 3).map(({ type }) => type)).toEqual(['status', 'status', 'stdout'])
})

test('a missing piece is a conflict that names the next one, and nothing is stored', async () => {
  const lease = await startSession()
  await store(lease, 1, [out('a')])
  await expect(store(lease, 3, [out('c')])).rejects.toMatchObject({
    code: 'CONFLICT',
    message: 'Piece 2 of the output comes next, not 3',
  })
  expect((await get(lease)).stdout).toBe('a')
})

test('only the very lease may report: another fence, another worker, an unknown session are refused', async () => {
  const lease = await startSession()
  const stranger = await addWorker(database.db)
  await expect(store({ ...lease, fence: 2 }, 1, [out('x')])).rejects.toMatchObject({ code: 'LEASE_LOST' })
  await expect(store({ ...lease, workerId: stranger }, 1, [out('x')])).rejects.toMatchObject({ code: 'LEASE_LOST' })
  await expect(store({ ...lease, sessionId: randomUUID() }, 1, [])).rejects.toMatchObject({ code: 'SESSION_NOT_FOUND' })
  expect((await get(lease)).stdout).toBe('')
})

test('an answer holds the last MiB of a stream, from a whole character on', async () => {
  const lease = await startSession()
  // 3 bytes each, so that the cut falls into one.
  const text = '€'.repeat(50_000)
  for (let first = 1; first <= 10; first++) await store(lease, first, [out(text)])
  await store(lease, 11, [err('ok')])
  const { stdout = '', stderr, truncated } = await get(lease)
  expect(truncated).toBe(true)
  expect(stderr).toBe('ok')
  expect(stdout).toMatch(/^€+$/)
  expect(Buffer.byteLength(stdout)).toBeGreaterThan(inlineBytes - 3)
  expect(Buffer.byteLength(stdout)).toBeLessThanOrEqual(inlineBytes)
})

test('bytes that are no UTF-8 are shown as replacement characters', async () => {
  const lease = await startSession()
  await store(lease, 1, [{ stream: 'stdout', data: Buffer.from([0x61, 0xff, 0x00, 0x62]) }])
  expect((await get(lease)).stdout).toBe('a\ufffd\0b')
})

test('beyond 64 MiB a stream is dropped with one marker; the other goes on', async () => {
  const lease = await startSession()
  const piece = { stream: 'stdout' as const, data: Buffer.alloc(4 * 1024 * 1024, 'x') }
  let first = 1
  for (; first <= 16; first++) await store(lease, first, [piece])
  await store(lease, first++, [out('over'), out('and out')])
  await store(lease, first + 1, [err('still here'), piece])
  const { stdout = '', stderr } = await get(lease)
  expect(stdout.endsWith(`x${cutMarker}`)).toBe(true)
  expect(stdout.split('[paws').length).toBe(2)
  expect(stderr).toBe('still here')
  const kept = await database.db
    .selectFrom('events')
    .select(({ fn }) => fn.countAll<number>().as('count'))
    .where('subject', '=', sessionSubject(lease.sessionId))
    .where('type', '=', 'stdout')
    .executeTakeFirstOrThrow()
  expect(kept.count).toBe(streamLimitBytes / piece.data.length + 1)
  expect((await findSession(database.db, org, lease.sessionId)).lastChunk).toBe(20)
})
