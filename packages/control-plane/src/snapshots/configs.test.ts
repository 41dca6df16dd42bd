import { execFile } from 'node:child_process'
import { setTimeout as sleep } from 'node:timers/promises'
import { promisify } from 'node:util'
import { afterAll, beforeEach, expect, test } from 'vitest'
import type { ErrorAnswer } from '../../../../test/support/control-plane.ts'
import { queueBuild } from './index.ts'
import { openBuilder, type SnapshotBody } from './testing/builder.ts'

const builder = await openBuilder()
const { plane, claim, claimOne, requestBuild, getSnapshot, getBuild, runSession, getSession, ask } = builder
const { fail, complete, buildOnce, clear } = builder
const other = await plane.otherOrganization()
afterAll(() => plane.close())
beforeEach(clear)

type Config = ErrorAnswer & {
  id: string
  template: string
  setup: string
  isolation: string
  requiredDomains: string[]
}

const quick = {
  ...{ id: 'my-snapshot', template: 'node', setup: 'npm install -g typescript', requiredDomains: ['preset:npm'] },
  resources: { vcpus: 2, memoryMB: 4096 },
}
const create = (differences: object = {}, key = plane.key) =>
  plane.call<Config>('POST', '/v1/snapshot-configs', { key, body: { id: 'mine', setup: 'true', ...differences } })
const call = (method: string, id: string, body?: unknown, key = plane.key) =>
  plane.call<Config>(method, `/v1/snapshot-configs/${id}`, { key, body })
const refusal = ({ status, body }: { status: number; body: ErrorAnswer }) => [status, body.error.code]

test('a config is kept as it was given, with its defaults, and its snapshot is missing until it is built', async () => {
  const made = await create(quick)
  expect(made).toMatchObject({
    status: 201,
    body: { ...quick, resources: { vcpus: 2, memoryMB: 4096, diskMB: 10_240 }, isolation: 'any' },
  })
  const plain = await create({ id: 'another' })
  expect(plain.body).toMatchObject({ template: 'minimal', requiredDomains: [], isolation: 'any' })
  expect((await call('GET', 'my-snapshot')).body).toEqual(made.body)
  const { body } = await plane.call<{ configs: Config[] }>('GET', '/v1/snapshot-configs')
  expect(body.configs).toEqual([plain.body, made.body])
  expect(await getSnapshot('my-snapshot')).toEqual({ ...snapshot('my-snapshot'), status: 'missing' })
  const listed = await plane.call<{ snapshots: SnapshotBody[] }>('GET', '/v1/snapshots')
  expect(listed.body.snapshots.map(({ id }) => id)).toEqual(
    expect.arrayContaining(['another', 'minimal', 'my-snapshot']),
  )
})

const snapshot = (id: string) => ({ id, isolation: [], workers: [] })

test('the two requests of the quick start work as they are written', async () => {
  const shell = async (line: string) => {
    const env = { PATH: process.env.PATH, PAWS_URL: plane.url, PAWS_KEY: plane.key }
    return JSON.parse((await promisify(execFile)('bash', ['-euc', line], { env })).stdout) as unknown
  }
  const made =
    await shell(`curl -s -X POST "$PAWS_URL/v1/snapshot-configs" -H "Authorization: Bearer $PAWS_KEY" -H "Content-Type: application/json" -d '{
  "id": "my-snapshot", "template": "node", "setup": "npm install -g typescript", "requiredDomains": ["preset:npm"],
  "resources": { "vcpus": 2, "memoryMB": 4096 } }'`)
  expect(made).toMatchObject(quick)
  const building = await shell(
    `curl -s -X POST "$PAWS_URL/v1/snapshots/my-snapshot/build" -H "Authorization: Bearer $PAWS_KEY"`,
  )
  const jobId = expect.stringMatching(/^build-[0-9a-f]+$/)
  expect(building).toEqual({ snapshotId: 'my-snapshot', status: 'building', jobId })
})

test('an id that is taken, by a config or by a template, is refused with the remedy', async () => {
  await create()
  const again = await create({ setup: 'false' })
  expect(refusal(again)).toEqual([409, 'CONFLICT'])
  expect(again.body.error.message).toContain('PUT /v1/snapshot-configs/mine')
  expect((await call('GET', 'mine')).body.setup).toBe('true')
  const shadow = await create({ id: 'node' })
  expect(refusal(shadow)).toEqual([409, 'CONFLICT'])
  expect(shadow.body.error.message).toContain('"node" is a template')
  // The same id in another organization is another config.
  expect((await create({}, other.key)).status).toBe(201)
})

test('a template must be one that paws brings', async () => {
  const unknown = await create({ template: 'nod' })
  expect(refusal(unknown)).toEqual([404, 'SNAPSHOT_NOT_FOUND'])
  expect(unknown.body.error.message).toMatch(/"nod" does not exist\. Templates: minimal, node,/)
  await create()
  const stacked = await create({ id: 'upon', template: 'mine' })
  expect(refusal(stacked)).toEqual([409, 'CONFLICT'])
  expect(stacked.body.error.message).toMatch(/"mine" is a config, and a config starts from a template/)
  expect(refusal(await call('PUT', 'mine', { setup: 'true', template: 'nod' }))).toEqual([404, 'SNAPSHOT_NOT_FOUND'])
  expect(refusal(await call('PUT', 'mine', { setup: 'true', template: 'mine' }))).toEqual([409, 'CONFLICT'])
})

test('an organization has a hundred at most', async () => {
  const row = { template: 'minimal', setup: 'true', requiredDomains: [], vcpus: 2, memoryMb: 4096, diskMb: 10_240 }
  const rows = Array.from({ length: 100 }, (_, n) => ({ ...row, id: `c${n}`, orgId: plane.orgId }))
  await plane.services.db.insertInto('snapshotConfigs').values(rows).execute()
  const refused = await create()
  expect(refusal(refused)).toEqual([409, 'CONFLICT'])
  expect(refused.body.error.message).toContain('at most 100 configs')
  expect((await create({}, other.key)).status).toBe(201)
})

test('what is wrong in a config is named', async () => {
  for (const [differences, path] of [
    [{ id: 'Mine' }, 'id'],
    [{ setup: '' }, 'setup'],
    [{ setup: 'a\0b' }, 'setup'],
    [{ requiredDomains: ['https://example.com'] }, 'requiredDomains.0'],
    [{ requiredDomains: ['preset:nmp'] }, 'requiredDomains.0'],
    [{ resources: { vcpus: 99 } }, 'resources.vcpus'],
    [{ isolation: 'strong' }, 'isolation'],
  ] as const) {
    const { status, body } = await create(differences)
    expect([status, body.error.details?.[0]?.path]).toEqual([400, path])
  }
})

test('a config is replaced whole, and keeps its id', async () => {
  const { body: made } = await create(quick)
  const { body: changed } = await call('PUT', 'my-snapshot', { id: 'my-snapshot', setup: 'echo other' })
  expect(changed).toMatchObject({ id: 'my-snapshot', template: 'minimal', setup: 'echo other', requiredDomains: [] })
  expect((await call('GET', 'my-snapshot')).body).toEqual(changed)
  expect(changed).toMatchObject({ createdAt: (made as unknown as { createdAt: string }).createdAt })
  const renamed = await call('PUT', 'my-snapshot', { id: 'other', setup: 'true' })
  expect(refusal(renamed)).toEqual([400, 'VALIDATION_ERROR'])
  expect(renamed.body.error.details).toEqual([{ path: 'id', message: expect.stringContaining('"my-snapshot"') }])
})

test("another organization's config is not there, nor is a template one", async () => {
  await create()
  for (const id of ['mine', 'none', 'node', '%00']) {
    for (const [method, body] of [
      ['GET', undefined],
      ['PUT', { setup: 'true' }],
      ['DELETE', undefined],
    ] as const) {
      expect(refusal(await call(method, id, body, other.key))).toEqual([404, 'SNAPSHOT_NOT_FOUND'])
    }
  }
  expect(refusal(await requestBuild('mine', other.key))).toEqual([404, 'SNAPSHOT_NOT_FOUND'])
  expect(await runSession('mine', other.key)).toBeUndefined()
  expect((await plane.call<{ configs: [] }>('GET', '/v1/snapshot-configs', { key: other.key })).body.configs).toEqual(
    [],
  )
  expect((await call('GET', 'mine')).status).toBe(200)
})

test('a build holds the config as it was when it was asked for', async () => {
  await buildOnce()
  await create({ requiredDomains: ['example.com'], resources: { memoryMB: 512 } })
  const { status, body } = await requestBuild('mine')
  expect([status, body]).toEqual([202, { snapshotId: 'mine', status: 'building', jobId: body.jobId }])
  await call('PUT', 'mine', { setup: 'false' })
  const held = await claimOne()
  const resources = { vcpus: 2, memoryMB: 512, diskMB: 10_240 }
  expect(held).toMatchObject({ jobId: body.jobId, snapshotId: 'mine', template: null })
  expect(held.config).toEqual({ organization: plane.orgId, setup: 'true', requiredDomains: ['example.com'], resources })
  expect(held.base).toEqual({ id: 'minimal', digest: (await getSnapshot()).digest })
})

test('the last good version serves on, whatever is changed and whatever fails', async () => {
  await buildOnce()
  await create()
  const good = await buildOnce('mine')
  const ready = { status: 'ready', version: 1, digest: good.digest }
  await call('PUT', 'mine', { setup: 'exit 1' })
  expect(await getSnapshot('mine')).toMatchObject(ready)
  const { body } = await requestBuild('mine')
  await fail(await claimOne(), 'The setup ended with 1')
  expect(await getBuild(body.jobId, 'mine')).toMatchObject({ status: 'failed', error: 'The setup ended with 1' })
  expect(await getSnapshot('mine')).toMatchObject(ready)
  const sessionId = await runSession('mine')
  expect(await claim({ sessions: 1 })).toMatchObject([{ sessionId, snapshot: { id: 'mine', digest: good.digest } }])
})

test('a session of a config that is not built waits for its build, and says so', async () => {
  await buildOnce()
  await create()
  const sessionId = await runSession('mine')
  expect((await getSnapshot('mine')).status).toBe('building')
  expect(await claim({ sessions: 1 })).toEqual([])
  const held = await claimOne()
  const events = await plane.services.db.selectFrom('events').select('data').where('type', '=', 'status').execute()
  const reasons = events.map(({ data }) => (JSON.parse(data.toString()) as { reason?: string }).reason)
  expect(reasons).toContain(`Snapshot "mine" is not built yet; waiting for ${held.jobId}`)
  await complete(held)
  expect(await claim({ sessions: 1 })).toMatchObject([{ sessionId, snapshot: { id: 'mine' } }])
})

test('a deleted config takes its snapshot, its build and what waits along, not what runs', async () => {
  await buildOnce()
  await create()
  const good = await buildOnce('mine')
  const running = await runSession('mine')
  expect(await claim({ sessions: 1 })).toMatchObject([{ sessionId: running }])
  const waiting = await runSession('mine')
  const { body } = await requestBuild('mine')
  const held = await claimOne()
  const stream = await fetch(`${plane.url}/v1/snapshots/mine/builds/${body.jobId}/events`, {
    headers: { authorization: `Bearer ${plane.key}` },
  })
  expect((await call('DELETE', 'mine')).status).toBe(204)

  expect(await stream.text()).toMatch(/event: done\ndata: .*"status":"failed".*"error":"Its config was deleted"/)
  expect((await fail(held, 'too late')).body.error.code).toBe('LEASE_LOST')
  const gone = await plane.call('GET', '/v1/snapshots/mine')
  expect(refusal(gone)).toEqual([404, 'SNAPSHOT_NOT_FOUND'])
  expect(await getSession(waiting)).toMatchObject({
    status: 'failed',
    error: { code: 'SNAPSHOT_BUILD_FAILED', message: expect.stringContaining('Its config was deleted') },
  })
  expect((await getSession(running)).status).toBe('running')
  expect((await ask('GET', `/worker/snapshots/${good.digest}/manifest.json`)).status).toBe(200)

  // Another of the same id begins anew.
  await create({ setup: 'echo anew' })
  expect((await getSnapshot('mine')).status).toBe('missing')
})

test('what is being queued when its config is deleted, is given up too', async () => {
  await buildOnce()
  await create()
  let deleting: Promise<unknown> | undefined
  await plane.services.db.transaction().execute(async (trx) => {
    await queueBuild(trx, plane.orgId, 'mine')
    deleting = call('DELETE', 'mine')
    await sleep(300)
  })
  await deleting
  expect(await claim({ builds: 5 })).toEqual([])
  expect(refusal(await requestBuild('mine'))).toEqual([404, 'SNAPSHOT_NOT_FOUND'])
})

test('a session that waits while its ready snapshot is deleted is told', async () => {
  await buildOnce()
  await create()
  await buildOnce('mine')
  const waiting = await runSession('mine')
  await call('DELETE', 'mine')
  expect(await getSession(waiting)).toMatchObject({
    status: 'failed',
    error: { code: 'SNAPSHOT_NOT_FOUND', message: 'Snapshot "mine" was deleted' },
  })
})

test('a config that demands a microVM is obeyed by sessions that ask for less', async () => {
  await create({ isolation: 'vm' })
  const workload = { type: 'script', script: 'true' }
  const refused = await plane.call('POST', '/v1/sessions', { body: { snapshot: 'mine', workload } })
  expect(refusal(refused)).toEqual([503, 'CAPACITY_EXHAUSTED'])
  expect(refused.body.error.message).toContain('No worker can run microVMs')
  await buildOnce()
  await buildOnce('mine')
  expect(await getSnapshot('mine')).toMatchObject({ status: 'ready', isolation: [] })
})
