import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { TemplateManifest } from '@paws/api'
import { afterAll, beforeEach, expect, test } from 'vitest'
import { listTemplates, templates } from './templates.ts'
import { openBuilder, type SnapshotBody, state } from './testing/builder.ts'

const { plane, ask, claim, claimOne, requestBuild, getSnapshot, fail, buildOnce, clear } = await openBuilder()
afterAll(() => plane.close())
beforeEach(clear)

test('templates are listed, and an unbuilt one is missing, not unknown', async () => {
  const { body } = await plane.call<{ templates: { id: string }[] }>('GET', '/v1/templates')
  expect(body.templates.map(({ id }) => id)).toEqual(['minimal', 'node', 'python', 'fullstack', 'claude-code'])
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

test('the folders of snapshots/ are the templates, and each starts from another', async () => {
  const root = join(import.meta.dirname, '../../../../snapshots')
  const folders = (await readdir(root, { withFileTypes: true })).filter((entry) => entry.isDirectory())
  expect(folders.map(({ name }) => name).sort()).toEqual(Object.keys(templates).sort())
  for (const { id, description } of listTemplates()) {
    const manifest = TemplateManifest.parse(JSON.parse(await readFile(join(root, id, 'manifest.json'), 'utf8')))
    expect(manifest.description).toBe(description)
    if ('template' in manifest.from) expect(Object.keys(templates)).toContain(manifest.from.template)
    else expect(id).toBe('minimal')
  }
})

test('a missing template may be asked for by anybody, a ready one again by the operator alone', async () => {
  const { key } = await plane.otherOrganization()
  const { body: asked } = await requestBuild('minimal', key)
  expect((await requestBuild()).body.jobId).toBe(asked.jobId)
  await fail(await claimOne(), 'The mirror is away')
  await buildOnce()

  const refused = await plane.call('POST', '/v1/snapshots/minimal/build', { key })
  expect(refused).toMatchObject({ status: 403, body: { error: { code: 'FORBIDDEN' } } })
  expect(refused.body.error.message).toMatch(/"minimal" is ready, .* only the operator may build it again/)
  expect(await claim()).toEqual([])
  const again = await requestBuild()
  expect(again.status).toBe(202)
  // Nor is a tenant let in on the operator's.
  expect((await requestBuild('minimal', key)).status).toBe(403)
  expect((await claimOne()).jobId).toBe(again.body.jobId)
})

test('which workers hold it is what they said last', async () => {
  const one = await buildOnce()
  expect((await getSnapshot()).workers).toEqual([])
  await ask('POST', '/worker/heartbeat', { state: state([one.digest]), held: [] })
  expect((await getSnapshot()).workers).toEqual(['builder'])
  const { body } = await plane.call<{ snapshots: SnapshotBody[] }>('GET', '/v1/snapshots')
  expect(body.snapshots.find(({ id }) => id === 'minimal')).toEqual(await getSnapshot())
  await ask('POST', '/worker/heartbeat', { state: state(), held: [] })
})
