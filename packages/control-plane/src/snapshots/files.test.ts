import { createHash } from 'node:crypto'
import { sql } from 'kysely'
import { afterAll, beforeEach, expect, test } from 'vitest'
import { image, openBuilder } from './testing/builder.ts'

const builder = await openBuilder()
const {
  plane,
  worker,
  ask,
  claimOne,
  requestBuild,
  getSnapshot,
  put,
  upload,
  finishReady,
  complete,
  buildOnce,
  clear,
} = builder
afterAll(() => plane.close())
beforeEach(clear)

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
  const one = image({}, 3_000_000)
  await requestBuild()
  await complete(await claimOne(), one)
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
  const { digest, ...one } = image({}, 3_000_000)
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
    values (gen_random_uuid(), ${orgId}, 'running', 'minimal', '', '{}', 1, 256, 256, 1000, ${worker.workerId})`.execute(
    db,
  )
  expect((await ask('GET', path)).status).toBe(200)
})
