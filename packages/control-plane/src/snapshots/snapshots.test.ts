import { createHash, randomBytes } from 'node:crypto'
import type { Build, Snapshot, SnapshotManifest } from '@paws/api'
import { sql } from 'kysely'
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest'
import type { z } from 'zod'
import {
  type ErrorAnswer,
  startTestControlPlane,
  type TestControlPlane,
} from '../../../../test/support/control-plane.ts'
import { workerState } from '../../../../test/support/world.ts'
import { reapBuilds } from './index.ts'

type Claim = { jobId: string; fence: number; snapshotId: string; template: string; kind: string }
type BuildBody = z.output<typeof Build>
type SnapshotBody = z.output<typeof Snapshot>

let plane: TestControlPlane
let worker: { id: string; name: string; credential: string }
beforeAll(async () => {
  plane = await startTestControlPlane()
  worker = await enrol('builder')
})
afterAll(() => plane.close())
// Each test has its workers to itself: nothing waits to be claimed from another.
beforeEach(async () => {
  await plane.services.db.deleteFrom('sessions').execute()
  await plane.services.db.deleteFrom('builds').execute()
  await plane.services.db.deleteFrom('snapshots').execute()
})

const state = (snapshots: string[] = []) => ({ ...workerState, maxSessions: 2, snapshots })

async function enrol(name: string) {
  const token = await plane.call<{ token: string }>('POST', '/v1/fleet/enrolment-tokens', { body: {} })
  const { body } = await plane.call<{ workerId: string; name: string; credential: string }>('POST', '/worker/enrol', {
    key: token.body.token,
    body: { name, state: state() },
  })
  return { id: body.workerId, name: body.name, credential: body.credential }
}

const ask = <T = ErrorAnswer>(method: string, path: string, body?: unknown, key: string = worker.credential) =>
  plane.call<T>(method, path, { key, body })

async function claim(want: { sessions?: number; builds?: number } = { builds: 1 }, key?: string): Promise<Claim[]> {
  const body = { sessions: 0, builds: 0, waitMs: 0, ...want }
  return (await ask<{ claims: Claim[] }>('POST', '/worker/claim', body, key)).body.claims
}

async function claimOne(): Promise<Claim> {
  const [one] = await claim()
  if (!one) throw new Error('There was nothing to claim')
  return one
}

const requestBuild = (key = plane.key) =>
  plane.call<{ jobId: string; status: string }>('POST', '/v1/snapshots/minimal/build', { key })
const getSnapshot = async (id = 'minimal') => (await plane.call<SnapshotBody>('GET', `/v1/snapshots/${id}`)).body
const getBuild = async (jobId: string) =>
  (await plane.call<BuildBody>('GET', `/v1/snapshots/minimal/builds/${jobId}`)).body
const runSession = async () =>
  (
    await plane.call<{ sessionId: string }>('POST', '/v1/sessions', {
      body: { snapshot: 'minimal', workload: { type: 'script', script: 'true' } },
    })
  ).body.sessionId

function image(size = 100_000) {
  const squashfs = randomBytes(size)
  const sha256 = createHash('sha256').update(squashfs).digest('hex')
  const manifest: SnapshotManifest = {
    format: 1,
    id: 'minimal',
    template: { id: 'minimal', sha256 },
    architecture: 'amd64',
    env: {},
    packages: {},
    files: { 'rootfs.squashfs': { sha256, sizeBytes: size } },
  }
  const bytes = Buffer.from(JSON.stringify(manifest))
  const digest = `sha256:${createHash('sha256').update(bytes).digest('hex')}`
  return { squashfs, sha256, manifest: bytes, digest, sizeBytes: size + bytes.length }
}
type Image = ReturnType<typeof image>

const put = (digest: string, file: string, bytes: Uint8Array) =>
  ask('PUT', `/worker/snapshots/${digest}/${file}`, bytes)

async function upload(one: Image): Promise<void> {
  expect((await put(one.digest, 'rootfs.squashfs', one.squashfs)).status).toBe(204)
  expect((await put(one.digest, 'manifest.json', one.manifest)).status).toBe(204)
}

const finish = ({ jobId, fence }: Claim, outcome: object, key?: string) =>
  ask<ErrorAnswer & { status: string }>('POST', `/worker/builds/${jobId}/finish`, { fence, outcome }, key)
const finishReady = (held: Claim, { digest, sizeBytes }: Image) => finish(held, { status: 'ready', digest, sizeBytes })

async function buildOnce(one = image()): Promise<Image> {
  await requestBuild()
  const held = await claimOne()
  await upload(one)
  expect((await finishReady(held, one)).body).toEqual({ status: 'ready' })
  return one
}

async function readEvents(jobId: string, after = 0) {
  const path = `/v1/snapshots/minimal/builds/${jobId}/events?after=${after}`
  const { body } = await plane.call<string>('GET', path)
  return body.split('\n\n').flatMap((text) => {
    const match = /^id: (\d+)\nevent: (\w+)\ndata: (.*)$/.exec(text)
    return match ? [{ id: Number(match[1]), event: match[2], data: JSON.parse(match[3] ?? '') }] : []
  })
}

test('templates are listed, and an unbuilt one is missing, not unknown', async () => {
  const { body } = await plane.call<{ templates: { id: string }[] }>('GET', '/v1/templates')
  expect(body.templates.map(({ id }) => id)).toContain('minimal')
  expect(await getSnapshot()).toEqual({ id: 'minimal', status: 'missing', isolation: [], workers: [] })
  for (const id of ['nod', 'MINIMAL', '%00', 'constructor']) {
    for (const [method, path] of [
      ['GET', ''],
      ['POST', '/build'],
      ['GET', '/builds/build-x'],
      ['GET', '/builds/x/events'],
    ]) {
      const answer = await plane.call(method as string, `/v1/snapshots/${id}${path}`)
      expect(answer.status).toBe(404)
      expect(answer.body.error.code).toBe('SNAPSHOT_NOT_FOUND')
    }
  }
  for (const jobId of ['build-x', `build-${'0'.repeat(32)}`, '%00']) {
    const answer = await plane.call('GET', `/v1/snapshots/minimal/builds/${jobId}`)
    expect([answer.status, answer.body.error.code]).toEqual([404, 'BUILD_NOT_FOUND'])
  }
})

test('many requests for a build at once are one build, claimed by one worker', async () => {
  const other = await enrol('another')
  const jobs = await Promise.all(Array.from({ length: 12 }, () => requestBuild()))
  expect(new Set(jobs.map(({ body }) => body.jobId)).size).toBe(1)
  expect(jobs.every(({ status, body }) => status === 202 && body.status === 'building')).toBe(true)
  expect((await getSnapshot()).status).toBe('building')
  const claims = await Promise.all([1, 2, 3, 4].flatMap(() => [claim(), claim({ builds: 1 }, other.credential)]))
  expect(claims.flat()).toMatchObject([{ kind: 'build', snapshotId: 'minimal', template: 'minimal', fence: 1 }])
})

test('a missing template may be asked for by anybody, a ready one again by the operator alone', async () => {
  const { key } = await plane.otherOrganization()
  const { body: asked } = await requestBuild(key)
  expect((await requestBuild()).body.jobId).toBe(asked.jobId)
  await finish(await claimOne(), { status: 'failed', error: 'The mirror is away' })
  await buildOnce()

  const refused = await plane.call('POST', '/v1/snapshots/minimal/build', { key })
  expect(refused).toMatchObject({ status: 403, body: { error: { code: 'FORBIDDEN' } } })
  expect(refused.body.error.message).toMatch(/"minimal" is ready, .* only the operator may build it again/)
  expect(await claim()).toEqual([])
  const again = await requestBuild()
  expect(again.status).toBe(202)
  // Nor is a tenant let in on the operator's.
  expect((await requestBuild(key)).status).toBe(403)
  expect((await claimOne()).jobId).toBe(again.body.jobId)
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
  expect((await finish(first, { status: 'failed', error: 'no mirror' })).body).toEqual({ status: 'failed' })
  const session = await plane.call<{ status: string; error: { code: string; message: string } }>(
    'GET',
    `/v1/sessions/${sessionId}`,
  )
  expect(session.body).toMatchObject({ status: 'failed', error: { code: 'SNAPSHOT_BUILD_FAILED' } })
  expect(session.body.error.message).toContain('no mirror')
  expect((await getSnapshot()).status).toBe('failed')

  const good = await buildOnce()
  await requestBuild()
  await finish(await claimOne(), { status: 'failed', error: 'again' })
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
    await finish(held, { status: 'failed', error: 'changed my mind' }),
    await finish({ ...held, fence: 7 }, { status: 'ready', digest: one.digest, sizeBytes: 1 }),
    await finish(held, { status: 'ready', digest: one.digest, sizeBytes: 1 }, (await enrol('thief')).credential),
    await ask('POST', `/worker/builds/${held.jobId}/progress`, { fence: held.fence, progress: 1, step: '', log: '' }),
  ]) {
    expect([answer.status, answer.body.error.code]).toEqual([409, 'LEASE_LOST'])
  }
  const unknown = await finish({ ...held, jobId: `build-${'0'.repeat(32)}` }, { status: 'failed', error: '' })
  expect([unknown.status, unknown.body.error.code]).toEqual([404, 'BUILD_NOT_FOUND'])
})

test('a build is not ready before its files are stored', async () => {
  await requestBuild()
  const held = await claimOne()
  const one = image()
  const early = await finishReady(held, one)
  expect([early.status, early.body.error.code]).toEqual([409, 'CONFLICT'])
  expect(early.body.error.message).toContain(one.digest)
  await upload(one)
  expect((await finishReady(held, one)).status).toBe(200)
})

test('files of other digests than named are refused, naming both', async () => {
  const one = image()
  const other = image()
  const early = await put(one.digest, 'manifest.json', one.manifest)
  expect(early.body.error).toMatchObject({ code: 'CONFLICT', message: expect.stringContaining('is not stored yet') })

  await put(one.digest, 'rootfs.squashfs', other.squashfs)
  const wrongFile = await put(one.digest, 'manifest.json', one.manifest)
  expect(wrongFile.body.error.code).toBe('CONFLICT')
  expect(wrongFile.body.error.message).toContain(one.sha256)
  expect(wrongFile.body.error.message).toContain(other.sha256)

  const wrongManifest = await put(one.digest, 'manifest.json', other.manifest)
  expect(wrongManifest.body.error.code).toBe('CONFLICT')
  expect(wrongManifest.body.error.message).toContain(one.digest)
  expect(wrongManifest.body.error.message).toContain(other.digest)

  const nonsense = Buffer.from('{"format":2}')
  const digest = `sha256:${createHash('sha256').update(nonsense).digest('hex')}`
  expect((await put(digest, 'manifest.json', nonsense)).body.error.message).toContain('The manifest is wrong')

  for (const [which, file] of [
    [one.digest, 'passwd'],
    ['sha256:x', 'manifest.json'],
    [one.digest, '..%2fx'],
  ]) {
    const answer = await put(which as string, file as string, Buffer.from('x'))
    expect([answer.status, answer.body.error.code]).toEqual([404, 'SNAPSHOT_NOT_FOUND'])
  }
})

test('a complete snapshot is never changed, and workers get its bytes as they were', async () => {
  const one = await buildOnce(image(3_000_000))
  expect((await put(one.digest, 'rootfs.squashfs', Buffer.from('other'))).status).toBe(204)
  for (const [file, bytes] of [
    ['rootfs.squashfs', one.squashfs],
    ['manifest.json', one.manifest],
  ] as const) {
    const answer = await fetch(`${plane.url}/worker/snapshots/${one.digest}/${file}`, {
      headers: { authorization: `Bearer ${worker.credential}` },
    })
    expect(answer.headers.get('content-length')).toBe(`${bytes.length}`)
    expect(Buffer.from(await answer.arrayBuffer()).equals(bytes)).toBe(true)
  }
})

test('nor by an upload that began before it was complete', async () => {
  const { digest, ...one } = image(3_000_000)
  const { promise: completed, resolve: complete } = Promise.withResolvers<void>()
  const begun = Promise.withResolvers<void>()
  const slow = async function* () {
    yield Buffer.from('other')
    begun.resolve()
    await completed
    yield Buffer.from('bytes')
  }
  const url = `${plane.url}/worker/snapshots/${digest}/rootfs.squashfs`
  const headers = { authorization: `Bearer ${worker.credential}`, 'content-type': 'application/octet-stream' }
  const late = fetch(url, { method: 'PUT', headers, body: ReadableStream.from(slow()), duplex: 'half' })
  await begun.promise
  await put(digest, 'rootfs.squashfs', one.squashfs)
  expect((await put(digest, 'manifest.json', one.manifest)).status).toBe(204)
  complete()
  expect((await late).status).toBe(204)
  const blob = await plane.services.blobs.get(`snapshots/${digest.slice('sha256:'.length)}/rootfs.squashfs`)
  expect(blob?.size).toBe(one.squashfs.length)
  blob?.content.destroy()
})

test("a worker gets no file of an organization's own snapshot unless it runs a session of it", async () => {
  const { db } = plane.services
  const { orgId } = await plane.otherOrganization()
  const one = await buildOnce()
  await db.updateTable('builds').set({ orgId }).execute()
  await db.updateTable('snapshots').set({ orgId }).execute()
  const path = `/worker/snapshots/${one.digest}/manifest.json`
  expect((await ask('GET', path)).status).toBe(404)
  expect(await getSnapshot()).toMatchObject({ status: 'missing' })
  await sql`
    insert into sessions (id, org_id, status, snapshot_id, script, env, vcpus, memory_mb, disk_mb, timeout_ms, worker_id)
    values (gen_random_uuid(), ${orgId}, 'running', 'minimal', '', '{}', 1, 256, 256, 1000, ${worker.id})`.execute(db)
  expect((await ask('GET', path)).status).toBe(200)
})

test('which workers hold it is what they said last', async () => {
  const one = await buildOnce()
  expect((await getSnapshot()).workers).toEqual([])
  await ask('POST', '/worker/heartbeat', { state: state([one.digest]), held: [] })
  expect((await getSnapshot()).workers).toEqual(['builder'])
  const { body } = await plane.call<{ snapshots: SnapshotBody[] }>('GET', '/v1/snapshots')
  expect(body.snapshots).toEqual([await getSnapshot()])
  await ask('POST', '/worker/heartbeat', { state: state(), held: [] })
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
  expect((await finish(first, { status: 'failed', error: '' })).body.error.code).toBe('LEASE_LOST')
  await expire()
  await reapBuilds(db)
  expect((await claimOne()).fence).toBe(3)
  await expire()
  await reapBuilds(db)
  const failed = await getBuild(body.jobId)
  expect(failed).toMatchObject({ status: 'failed', error: expect.stringContaining('builder was out of contact') })
  expect((await readEvents(body.jobId)).at(-1)?.event).toBe('done')
})
