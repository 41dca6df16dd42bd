import { sql } from 'kysely'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { startTestControlPlane, type TestControlPlane } from '../../../../test/support/control-plane.ts'
import { addSnapshot, addWorker, request, workerState } from '../testing/fleet.ts'
import { sealedColumns } from './sealed-columns.ts'

let plane: TestControlPlane
beforeAll(async () => {
  plane = await startTestControlPlane()
  await addSnapshot(plane.database.db)
  await addWorker(plane.database.db)
})
afterAll(() => plane.close())

test('every column of sealed bytes is known to the replacement of data keys', async () => {
  const { rows } = await sql<{ place: string }>`
    select table_name || '.' || column_name as place from information_schema.columns
    where table_schema = 'public' and data_type = 'bytea' and column_name like '%sealed%' order by 1`.execute(
    plane.database.db,
  )
  const snake = (name: string) => name.replaceAll(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`)
  const known = sealedColumns.map(({ table, column }) => `${snake(table)}.${snake(column)}`)
  expect(known.sort()).toEqual(rows.map(({ place }) => place))
})

test('replaced through the API, a data key leaves every sealed thing readable', async () => {
  const { db } = plane.database
  const org = `/v1/orgs/${plane.orgId}`
  await plane.call('PUT', '/v1/secrets/TOKEN', { body: { value: 'stored-value' } })
  const before = await plane.call('GET', `${org}/webhook-secret`)
  const rotated = await plane.call('POST', `${org}/webhook-secret/rotate`, { body: {} })
  const credentials = { 'api.test': { headers: { 'x-api-key': { secret: 'TOKEN' } } } }
  const body = request({ network: { credentials } })
  const headers = { 'idempotency-key': 'once' }
  const session = await plane.call('POST', '/v1/sessions', { body, headers })

  const answer = await plane.call<{ version: number; resealed: number }>('POST', `${org}/data-key/rotate`)
  // The stored secret, the session's, both webhook secrets and the kept answer.
  expect(answer).toMatchObject({ status: 200, body: { version: 2, resealed: 5 } })
  expect(await db.selectFrom('dataKeys').select('version').execute()).toEqual([{ version: 2 }])

  expect((await plane.call('GET', `${org}/webhook-secret`)).body).toEqual(rotated.body)
  expect(JSON.stringify(rotated.body)).toContain((before.body as unknown as { secret: string }).secret)
  const replayed = await plane.call('POST', '/v1/sessions', { body, headers })
  expect(replayed.headers.get('idempotent-replayed')).toBe('true')
  expect(replayed.body).toEqual(session.body)
  const { credential } = await plane.enrolWorker(workerState())
  const claimed = await plane.call('POST', '/worker/claim', {
    key: credential,
    body: { sessions: 1, builds: 0, waitMs: 0 },
  })
  expect(claimed.body).toMatchObject({
    claims: [{ network: { credentials: { 'api.test': { headers: { 'x-api-key': 'stored-value' } } } } }],
  })
})

test('another organization’s data key is not found', async () => {
  const other = await plane.otherOrganization()
  const answer = await plane.call('POST', `/v1/orgs/${plane.orgId}/data-key/rotate`, { key: other.key })
  expect(answer).toMatchObject({ status: 404, body: { error: { code: 'ORGANIZATION_NOT_FOUND' } } })
})
