import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeEach, expect, test } from 'vitest'
import { queueBuild } from './index.ts'
import { image, imageFor, openBuilder } from './testing/builder.ts'

const builder = await openBuilder()
const { plane, claim, claimOne, requestBuild, getSnapshot, getBuild, runSession, getSession } = builder
const { upload, finishReady, fail, complete, buildOnce, clear } = builder
const other = await plane.otherOrganization()
afterAll(() => plane.close())
beforeEach(clear)

const create = (id: string, template: string, key = plane.key) =>
  plane.call('POST', '/v1/snapshot-configs', { key, body: { id, template, setup: 'true' } })

test('what a build starts from is built before it, and named by its digest', async () => {
  await create('mine', 'claude-code')
  const { body } = await requestBuild('mine')
  const waiting = expect.stringMatching(/^Waiting for "claude-code", which it starts from \(build-\w+\)$/)
  expect(await getBuild(body.jobId, 'mine')).toMatchObject({ status: 'queued', step: waiting })
  let base: { id: string; digest: string } | null = null
  for (const snapshotId of ['minimal', 'node', 'claude-code', 'mine']) {
    const claims = await claim({ builds: 5 })
    expect(claims).toMatchObject([{ snapshotId, base }])
    const [held] = claims
    if (!held) throw new Error('unreachable')
    const { digest } = await complete(held)
    base = { id: snapshotId, digest }
  }
  expect((await getSnapshot('mine')).status).toBe('ready')
})

test('builds that start from one are claimed together once it is ready; a missing base is built once', async () => {
  await Promise.all(['node', 'python', 'fullstack', 'claude-code'].map((id) => requestBuild(id, other.key)))
  const first = await claim({ builds: 5 })
  expect(first.map(({ snapshotId }) => snapshotId)).toEqual(['minimal'])
  await complete(await only(first))
  const second = await claim({ builds: 5 })
  expect(second.map(({ snapshotId }) => snapshotId).sort()).toEqual(['node', 'python'])
})

async function only<T>(list: T[]): Promise<T> {
  const [one] = list
  if (list.length !== 1 || one === undefined) throw new Error(`One was expected, not ${list.length}`)
  return one
}

test('when a base fails, what waits for it fails with it and says why, sessions too', async () => {
  await create('mine', 'node')
  const sessionId = await runSession('mine')
  const { body: wanted } = await requestBuild('mine')
  const { body: beside } = await requestBuild('python')
  await complete(await claimOne())
  const held = await claim({ builds: 5 })
  expect(held.map(({ snapshotId }) => snapshotId).sort()).toEqual(['node', 'python'])
  const node = await only(held.filter(({ snapshotId }) => snapshotId === 'node'))
  await fail(node, 'no registry')
  const why = `Snapshot "node", which it starts from, could not be built (${node.jobId}): no registry`
  expect(await getBuild(wanted.jobId, 'mine')).toMatchObject({ status: 'failed', error: why })
  expect((await getBuild(beside.jobId, 'python')).status).toBe('building')
  expect(await getSession(sessionId)).toMatchObject({
    status: 'failed',
    error: { code: 'SNAPSHOT_BUILD_FAILED', message: expect.stringContaining(why) },
  })
})

test('a failure is handed down to the last that starts from it', async () => {
  await create('mine', 'fullstack')
  const { body } = await requestBuild('mine')
  await fail(await claimOne(), 'no mirror')
  const { status, error } = await getBuild(body.jobId, 'mine')
  expect(status).toBe('failed')
  expect(error).toMatch(/^Snapshot "fullstack", .* Snapshot "node", .* Snapshot "minimal", .*: no mirror$/)
  expect(await claim({ builds: 5 })).toEqual([])
})

test('whatever is asked for while a base fails, nothing waits for what will not come', async () => {
  for (let round = 0; round < 5; round++) {
    await requestBuild('minimal')
    const base = await claimOne()
    const wanted = ['node', 'python', 'claude-code', 'fullstack', 'node', 'python']
    const [sessions] = await Promise.all([Promise.all(wanted.map((id) => runSession(id))), fail(base, 'no mirror')])
    // Those that came too late have queued the base anew, and wait for that.
    const [anew] = await claim({ builds: 5 })
    if (anew) await fail(anew, 'no mirror')
    for (const id of sessions) expect((await getSession(id)).status).toBe('failed')
    expect(await claim({ builds: 5 })).toEqual([])
    const unfinished = plane.services.db
      .selectFrom('builds')
      .select('jobId')
      .where('status', 'in', ['queued', 'building'])
    expect(await unfinished.execute()).toEqual([])
  }
})

test('what is being queued when its base fails, fails too', async () => {
  await requestBuild('minimal')
  const base = await claimOne()
  let failing: Promise<unknown> | undefined
  const { jobId } = await plane.services.db.transaction().execute(async (trx) => {
    const queued = await queueBuild(trx, plane.orgId, 'node')
    failing = fail(base, 'no mirror')
    await sleep(300)
    return queued
  })
  await failing
  expect(await getBuild(jobId, 'node')).toMatchObject({ status: 'failed', error: expect.stringContaining('no mirror') })
})

test('a base that fails to be built again stops nobody', async () => {
  await buildOnce()
  await requestBuild('minimal')
  const again = await claimOne()
  const { body } = await requestBuild('node')
  await fail(again, 'no mirror')
  const held = await claimOne()
  expect(held).toMatchObject({ jobId: body.jobId, base: { digest: (await getSnapshot()).digest } })
})

test('organizations are served in turn, templates before all', async () => {
  await buildOnce()
  for (const id of ['a1', 'a2', 'a3']) {
    await create(id, 'minimal')
    await requestBuild(id)
  }
  for (const id of ['b1', 'b2']) {
    await create(id, 'minimal', other.key)
    await requestBuild(id, other.key)
  }
  await requestBuild('node')
  const order = async (builds: number) => (await claim({ builds })).map(({ snapshotId }) => snapshotId)
  expect(await order(3)).toEqual(['node', 'a1', 'b1'])
  // One of each is under way.
  expect(await order(1)).toEqual(['a2'])
  expect(await order(5)).toEqual(['b2', 'a3'])
})

test('what is built must be what was claimed', async () => {
  await buildOnce()
  await create('mine', 'minimal')
  await requestBuild('mine')
  const held = await claimOne()
  const right = JSON.parse(imageFor(held).manifest.toString())
  const stranger = { organization: other.orgId, sha256: 'c'.repeat(64) }
  for (const [differences, name] of [
    [{ id: 'minimal' }, 'id'],
    [{ template: { id: 'minimal', sha256: 'c'.repeat(64) } }, 'template'],
    [{ config: stranger }, 'organization'],
    [{ config: undefined }, 'organization'],
    [{ base: `sha256:${'d'.repeat(64)}` }, 'base'],
    [{ base: undefined }, 'base'],
  ] as const) {
    const { files: _files, ...facts } = right
    const wrong = image({ template: undefined, ...facts, ...differences })
    await upload(wrong)
    const { status, body } = await finishReady(held, wrong)
    expect([status, body.error.code]).toEqual([409, 'CONFLICT'])
    expect(body.error.message).toContain(`as ${name}, and "${held.jobId}" was claimed with`)
  }
  await complete(held)
})

test("a template's build can't be given an organization's snapshot, nor one organization's build another's", async () => {
  await buildOnce()
  await create('mine', 'minimal')
  const mine = await buildOnce('mine')
  await requestBuild('minimal')
  const template = await claimOne()
  expect((await finishReady(template, mine)).body.error.message).toContain('The manifest names mine as id')
  await fail(template, 'enough')

  await create('mine', 'minimal', other.key)
  await requestBuild('mine', other.key)
  const held = await claimOne()
  expect((await finishReady(held, mine)).body.error.message).toContain(`names ${plane.orgId} as organization`)
  // Even with a manifest that fits, what another's build has made is not given away.
  const copy = imageFor(held)
  await upload(copy)
  const row = { snapshotId: 'x', orgId: plane.orgId, status: 'ready', digest: copy.digest }
  await plane.services.db
    .insertInto('builds')
    .values({ jobId: `build-${'e'.repeat(32)}`, ...row })
    .execute()
  const { status, body } = await finishReady(held, copy)
  expect([status, body.error.code]).toEqual([409, 'CONFLICT'])
  expect(body.error.message).toContain("what another organization's build has made")
})
