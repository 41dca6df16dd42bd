import { sql } from 'kysely'
import { afterAll, beforeEach, expect, test } from 'vitest'
import { reapBuilds } from './index.ts'
import { type Claim, image, openBuilder, state } from './testing/builder.ts'

const builder = await openBuilder()
const { plane, enrol, ask, claim, claimOne, requestBuild, getSnapshot, getBuild, runSession, getSession } = builder
const { upload, finish, finishReady, fail, buildOnce, readEvents, clear } = builder
afterAll(() => plane.close())
beforeEach(clear)

test('many requests for a build at once are one build, claimed by one worker', async () => {
  const other = await enrol('another')
  const jobs = await Promise.all(Array.from({ length: 12 }, () => requestBuild()))
  expect(new Set(jobs.map(({ body }) => body.jobId)).size).toBe(1)
  expect(jobs.every(({ status, body }) => status === 202 && body.status === 'building')).toBe(true)
  expect((await getSnapshot()).status).toBe('building')
  const claims = await Promise.all([1, 2, 3, 4].flatMap(() => [claim(), claim({ builds: 1 }, other.credential)]))
  expect(claims.flat()).toMatchObject([{ kind: 'build', snapshotId: 'minimal', template: 'minimal', fence: 1 }])
})

test('a waiting claim is woken by a request', async () => {
  const waiting = ask<{ claims: Claim[] }>('POST', '/worker/claim', { sessions: 0, builds: 1, waitMs: 20_000 })
  await new Promise((resolve) => setTimeout(resolve, 200))
  const begun = Date.now()
  const { body } = await requestBuild()
  expect((await waiting).body.claims[0]?.jobId).toBe(body.jobId)
  expect(Date.now() - begun).toBeLessThan(2000)
})

test('progress and log are seen in the answer and in the stream, from wherever it is resumed', async () => {
  const { body } = await requestBuild()
  const held = await claimOne()
  const report = (progress: number, step: string, log: string) =>
    ask('POST', `/worker/builds/${held.jobId}/progress`, { fence: held.fence, progress, step, log })
  const stream = readEvents(body.jobId)
  expect((await report(0.25, 'Unpacking', 'line one\n')).status).toBe(204)
  expect((await report(0.5, 'Packing', 'zeile ä\n')).status).toBe(204)
  expect((await report(0.6, 'Packing', '')).status).toBe(204)
  expect(await getBuild(body.jobId)).toMatchObject({
    ...{ status: 'building', progress: 0.6, step: 'Packing', worker: 'builder', log: 'line one\nzeile ä\n' },
  })
  const one = image()
  await upload(one)
  await finishReady(held, one)
  const events = await stream
  expect(events.map(({ event }) => event)).toEqual([
    ...['progress', 'progress', 'log', 'progress', 'log', 'progress', 'progress', 'done'],
  ])
  expect(events.map(({ id }) => id)).toEqual([1, 2, 3, 4, 5, 6, 7, 8])
  expect(events[3]?.data).toEqual({ status: 'building', progress: 0.25, step: 'Unpacking' })
  const { log: _log, ...built } = await getBuild(body.jobId)
  expect(events.at(-1)?.data).toEqual(built)
  expect(await readEvents(body.jobId, 5)).toEqual(events.slice(5))
  expect(await readEvents(body.jobId, 8)).toEqual([])
})

test('the answer has the last 256 KiB of a long log', async () => {
  const { body } = await requestBuild()
  const held = await claimOne()
  for (const letter of 'abcd') {
    const log = `${letter.repeat(99_999)}\n`
    await ask('POST', `/worker/builds/${held.jobId}/progress`, { fence: held.fence, progress: 0, step: '', log })
  }
  const { log } = await getBuild(body.jobId)
  expect(log.length).toBe(256 * 1024)
  expect(log.endsWith(`${'d'.repeat(99_999)}\n`)).toBe(true)
})

test('a session of an unbuilt template waits, and can be claimed once the build is good', async () => {
  const sessionId = await runSession()
  expect(await claim({ sessions: 1 })).toEqual([])
  const held = await claimOne()
  const one = image()
  await upload(one)
  const waiting = ask<{ claims: unknown[] }>('POST', '/worker/claim', { sessions: 1, builds: 0, waitMs: 20_000 })
  await finishReady(held, one)
  expect((await waiting).body.claims).toMatchObject([{ sessionId, snapshot: { id: 'minimal', digest: one.digest } }])
})

test('a failed build fails what waited for it, and leaves the last good version serving', async () => {
  const sessionId = await runSession()
  const first = await claimOne()
  expect((await fail(first, 'no mirror')).body).toEqual({ status: 'failed' })
  const session = await getSession(sessionId)
  expect(session).toMatchObject({ status: 'failed', error: { code: 'SNAPSHOT_BUILD_FAILED' } })
  expect(session.error?.message).toContain('no mirror')
  expect((await getSnapshot()).status).toBe('failed')

  const good = await buildOnce()
  await requestBuild()
  await fail(await claimOne(), 'again')
  expect(await getSnapshot()).toMatchObject({ status: 'ready', version: 1, digest: good.digest })
  const better = await buildOnce()
  expect(await getSnapshot()).toMatchObject({
    ...{ status: 'ready', version: 2, digest: better.digest, sizeBytes: better.sizeBytes, isolation: ['process'] },
  })
})

test('the same report of an end is acknowledged again; another one, or of a lost lease, is refused', async () => {
  await requestBuild()
  const held = await claimOne()
  const one = image()
  await upload(one)
  await finishReady(held, one)
  expect((await finishReady(held, one)).body).toEqual({ status: 'ready' })
  expect((await getSnapshot()).version).toBe(1)
  for (const answer of [
    await fail(held, 'changed my mind'),
    await finish({ ...held, fence: 7 }, { status: 'ready', digest: one.digest, sizeBytes: 1 }),
    await finish(held, { status: 'ready', digest: one.digest, sizeBytes: 1 }, (await enrol('thief')).credential),
    await ask('POST', `/worker/builds/${held.jobId}/progress`, { fence: held.fence, progress: 1, step: '', log: '' }),
  ]) {
    expect([answer.status, answer.body.error.code]).toEqual([409, 'LEASE_LOST'])
  }
  const unknown = await finish({ ...held, jobId: `build-${'0'.repeat(32)}` }, { status: 'failed', error: '' })
  expect([unknown.status, unknown.body.error.code]).toEqual([404, 'BUILD_NOT_FOUND'])
})

test('a lost build is given to another worker twice, then it fails; its first worker is told', async () => {
  const { db } = plane.services
  const { body } = await requestBuild()
  const expire = () => sql`update builds set lease_expires_at = now() - interval '1 second'`.execute(db)
  const first = await claimOne()
  await ask('POST', '/worker/heartbeat', { state: state(), held: [{ kind: 'build', id: first.jobId, fence: 1 }] })
  expect(await reapBuilds(db)).toBe(0)
  await expire()
  expect(await reapBuilds(db)).toBe(1)
  expect(await getBuild(body.jobId)).toMatchObject({
    status: 'queued',
    step: expect.stringContaining('out of contact'),
  })
  const beat = await ask<{ lost: string[] }>('POST', '/worker/heartbeat', {
    state: state(),
    held: [{ kind: 'build', id: first.jobId, fence: 1 }],
  })
  expect(beat.body.lost).toEqual([first.jobId])
  expect((await claimOne()).fence).toBe(2)
  expect((await fail(first, '')).body.error.code).toBe('LEASE_LOST')
  await expire()
  await reapBuilds(db)
  expect((await claimOne()).fence).toBe(3)
  await expire()
  await reapBuilds(db)
  const failed = await getBuild(body.jobId)
  expect(failed).toMatchObject({ status: 'failed', error: expect.stringContaining('builder was out of contact') })
  expect((await readEvents(body.jobId)).at(-1)?.event).toBe('done')
})
