import { type EgressRecord, egressLimitBytes } from '@paws/api'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { startTestControlPlane, type TestControlPlane } from '../../../../test/support/control-plane.ts'
import { addSnapshot, request, type TestClaim, workerState } from '../testing/fleet.ts'
import { archiveSession } from './archive.ts'

let plane: TestControlPlane
let worker: string
beforeAll(async () => {
  plane = await startTestControlPlane()
  await addSnapshot(plane.database.db)
  worker = (await plane.enrolWorker(workerState())).credential
})
afterAll(() => plane.close())

async function running(): Promise<string> {
  await plane.call('POST', '/v1/sessions', { body: request() })
  const body = { sessions: 1, builds: 0, waitMs: 0 }
  const { claims } = (await plane.call<{ claims: TestClaim[] }>('POST', '/worker/claim', { key: worker, body })).body
  if (!claims[0]) throw new Error('There was nothing to claim')
  return claims[0].sessionId
}

let made = 0
const record = (decision: 'allowed' | 'refused' = 'allowed'): EgressRecord => ({
  at: new Date(1_790_000_000_000 + made).toISOString(),
  decision,
  port: 443,
  host: 'api.test',
  path: `/${made++}`,
})
const chunk = (stream: string, data: unknown) => ({
  stream,
  data: Buffer.from(typeof data === 'string' ? data : JSON.stringify(data)).toString('base64'),
})
const report = (id: string, first: number, chunks: object[]) =>
  plane.call('POST', `/worker/sessions/${id}/output`, { key: worker, body: { fence: 1, first, chunks } })
const finish = (id: string, first: number, chunks: object[] = []) => {
  const outcome = { status: 'completed', exitCode: 0, durationMs: 1 }
  const body = { fence: 1, outcome, first, chunks }
  return plane.call('POST', `/worker/sessions/${id}/finish`, { key: worker, body })
}
interface Page {
  requests: EgressRecord[]
  nextCursor?: string
  truncated?: boolean
}
const list = async (id: string, query = '') => (await plane.call<Page>('GET', `/v1/sessions/${id}/egress${query}`)).body
const paths = ({ requests }: Page) => requests.map(({ path }) => path)

test('records stand among the events and are listed newest first, in pages, by decision', async () => {
  const id = await running()
  const records = Array.from({ length: 9 }, (_, index) => record(index % 3 === 0 ? 'refused' : 'allowed'))
  const wanted = records.map(({ path }) => path).reverse()
  await report(id, 1, [chunk('egress', records.slice(0, 4)), chunk('stdout', 'hello'), chunk('egress', [])])
  await finish(id, 4, [chunk('egress', records.slice(4))])

  expect(paths(await list(id))).toEqual(wanted)
  const seen: (string | undefined)[] = []
  let page = await list(id, '?limit=2')
  for (;;) {
    seen.push(...paths(page))
    if (!page.nextCursor) break
    page = await list(id, `?limit=2&cursor=${page.nextCursor}`)
  }
  expect(seen).toEqual(wanted)
  expect(paths(await list(id, '?decision=refused'))).toEqual([wanted[2], wanted[5], wanted[8]])
  expect((await list(id)).requests.at(-1)).toEqual(records[0])

  const events = await plane.call<string>('GET', `/v1/sessions/${id}/events`)
  const sent = events.body.split('\n\n').filter((event) => event.includes('event: egress'))
  expect(sent[0]).toContain(`data: ${JSON.stringify({ requests: records.slice(0, 4) })}`)
  const { body } = await plane.call<{ stdout: string }>('GET', `/v1/sessions/${id}`)
  expect(body.stdout).toBe('hello')
  const wrong = await plane.call('GET', `/v1/sessions/${id}/egress?cursor=x`)
  expect(wrong).toMatchObject({ status: 400, body: { error: { code: 'VALIDATION_ERROR' } } })
})

test('what is no array of records is refused, and what the contract lacks is left out', async () => {
  const id = await running()
  for (const wrong of ['', 'x', '{}', '[{}]', JSON.stringify([{ ...record(), decision: 'perhaps' }])]) {
    const refused = await report(id, 1, [chunk('stdout', 'x'), chunk('egress', wrong)])
    expect(refused).toMatchObject({ status: 400, body: { error: { details: [{ path: 'chunks.1.data' }] } } })
  }
  const known = record()
  expect((await report(id, 1, [chunk('egress', [{ ...known, authorization: 'x' }])])).status).toBe(200)
  expect((await list(id)).requests).toEqual([known])
  await finish(id, 2)
})

test('records do not count as output, and stay where they are when that is archived', async () => {
  const { db, services } = { db: plane.database.db, services: plane.services }
  const id = await running()
  const long = chunk('stdout', 'x'.repeat(900_000))
  const records = Array.from({ length: 4 }, () => record())
  for (const [index, one] of records.entries()) await report(id, 1 + 2 * index, [long, chunk('egress', [one])])
  await finish(id, 9)
  await archiveSession(db, services.blobs, id)
  const query = db.selectFrom('sessions').select(['stdoutBytes', 'archivedAt']).where('id', '=', id)
  expect(await query.executeTakeFirst()).toEqual({ stdoutBytes: 3_600_000, archivedAt: expect.any(Date) })
  expect((await list(id)).requests).toEqual(records.toReversed())
  const { body: events } = await plane.call<string>('GET', `/v1/sessions/${id}/events`)
  const order = [...events.matchAll(/^event: (\w+)$/gm)].map(([, type]) => type)
  expect(order.slice(2, -2)).toEqual(records.flatMap(() => ['stdout', 'egress']))
})

test('more records than are kept are dropped whole, and the list says so', async () => {
  const { db } = plane.database
  const id = await running()
  await report(id, 1, [chunk('egress', [record()])])
  await db
    .updateTable('sessions')
    .set({ egressBytes: egressLimitBytes - 10 })
    .where('id', '=', id)
    .execute()
  expect((await list(id)).truncated).toBe(undefined)
  expect((await report(id, 2, [chunk('egress', [record()]), chunk('stdout', 'on')])).body).toEqual({ stored: 3 })
  const page = await list(id)
  expect([page.requests.length, page.truncated]).toEqual([1, true])
  await finish(id, 4)
  expect((await plane.call<{ stdout: string }>('GET', `/v1/sessions/${id}`)).body.stdout).toBe('on')
})
