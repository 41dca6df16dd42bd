import { readdir, readFile } from 'node:fs/promises'
import { join, relative } from 'node:path'
import { type Endpoint, endpoints, isBytesBody, type OperationId } from '@paws/api'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { type CallOptions, callApi } from './support/control-plane.ts'
import { sendRaw } from './support/http.ts'
import { fillPath, openWorld, type World, workerState } from './support/world.ts'

const operations = (Object.entries(endpoints) as [OperationId, Endpoint][]).map(([id, endpoint]) => ({ id, endpoint }))
const ofKeys = operations.filter(({ endpoint }) => !['public', 'worker', 'enrolment'].includes(endpoint.access))
const ofWorkers = operations.filter(({ endpoint }) => ['worker', 'enrolment'].includes(endpoint.access))

let world: World
beforeAll(async () => {
  world = await openWorld()
})
afterAll(() => world.close())

/** A body that each operation accepts: what is refused here must not be refused for its body. */
const bodies: Partial<Record<OperationId, unknown>> = {
  createSession: { snapshot: 'private', workload: { type: 'script', script: 'true' } },
  execInSession: { command: ['true'] },
  createEnrolmentToken: {},
  createOrganization: { name: 'x' },
  updateOrganization: { name: 'x' },
  createApiKey: { name: 'x' },
  rotateApiKey: {},
  rotateWebhookSecret: {},
  enrolWorker: { name: 'x', state: workerState },
  heartbeat: { state: workerState, held: [] },
  claim: { sessions: 0, builds: 0, waitMs: 0 },
  reportOutput: { fence: 1, first: 1, chunks: [] },
  finishSession: { fence: 1, outcome: { status: 'completed', exitCode: 0, durationMs: 1 }, first: 1, chunks: [] },
  reportBuild: { fence: 1, progress: 0.5, step: 'x', log: '' },
  finishBuild: { fence: 1, outcome: { status: 'failed', error: 'x' } },
}

const queries: Partial<Record<OperationId, string>> = { readSessionFile: '?path=/x', writeSessionFile: '?path=/x' }

/** Calls an operation as it should be called, with that credential; answers status and error code. */
async function call(id: OperationId, key: string | null, params: Record<string, string> = {}) {
  const endpoint: Endpoint = endpoints[id]
  const path = fillPath(endpoint.path, { ...world.params, ...params }) + (queries[id] ?? '')
  if (101 in endpoint.returns) return upgrade(path, key)
  const options: CallOptions = { key }
  if (isBytesBody(endpoint.body)) options.body = Buffer.from('x')
  else if (endpoint.body) {
    options.body = bodies[id]
    if (options.body === undefined) throw new Error(`test/house.test.ts has no body for ${id} yet: add one`)
  }
  const answer = await callApi(`${world.plane.url}${path}`, endpoint.method.toUpperCase(), options)
  return { status: answer.status, code: answer.body?.error?.code, body: JSON.stringify(answer.body) }
}

async function upgrade(path: string, key: string | null) {
  const credential = key ? `Authorization: Bearer ${key}\r\n` : ''
  const head = `GET ${path} HTTP/1.1\r\nHost: x\r\n${credential}Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n`
  const answer = await sendRaw(Number(new URL(world.plane.url).port), head)
  const body = answer.split('\r\n\r\n')[1] ?? ''
  return { status: Number(answer.split(' ')[1]), code: /"code":"(\w+)"/.exec(body)?.[1], body }
}

describe('who may call what', () => {
  test.each(operations.filter(({ endpoint }) => endpoint.access !== 'public'))(
    '$id is 401 without a key',
    async ({ id }) => {
      expect(await call(id, null)).toMatchObject({ status: 401, code: 'UNAUTHORIZED' })
    },
  )

  test.each(ofWorkers)('$id refuses API keys', async ({ id }) => {
    expect(await call(id, world.plane.key)).toMatchObject({ status: 401, code: 'UNAUTHORIZED' })
  })

  test.each(ofKeys)('$id refuses the credentials of workers', async ({ id }) => {
    expect(await call(id, world.worker.credential)).toMatchObject({ status: 401, code: 'UNAUTHORIZED' })
  })

  test.each(ofKeys.filter(({ endpoint }) => endpoint.access !== 'key'))(
    '$id is 403 without its scope',
    async ({ id }) => {
      const { access } = endpoints[id]
      const scopes = access === 'sessions:read' ? ['sessions:write'] : ['sessions:read']
      const path = `/v1/orgs/${world.plane.orgId}/api-keys`
      const { body } = await world.plane.call<{ key: string }>('POST', path, { body: { name: 'narrow', scopes } })
      const refused = await call(id, body.key)
      expect(refused).toMatchObject({ status: 403, code: 'FORBIDDEN' })
      expect(refused.body).toContain(access)
    },
  )
})

describe('another organization', () => {
  const onObjects = ofKeys.filter(({ endpoint }) => endpoint.path.includes('{') && endpoint.access !== 'fleet:admin')
  test.each(onObjects)('gets 404 from $id', async ({ id }) => {
    const answer = await call(id, world.other.key)
    expect(answer.status).toBe(404)
    expect(answer.code).toMatch(/_NOT_FOUND$/)
  })

  test.each(onObjects.filter(({ endpoint }) => endpoint.path.split('{').length > 2))(
    'gets 404 from $id by way of its own, too',
    async ({ id }) => {
      // Its own organization or a shared snapshot in the path, and in it what is another's.
      const own = { orgId: world.other.orgId, snapshotId: 'minimal' }
      expect((await call(id, world.other.key, own)).status).toBe(404)
    },
  )

  const lists = ofKeys.filter(({ id, endpoint }) => id.startsWith('list') && endpoint.access !== 'fleet:admin')
  test.each(lists)('sees nothing of the first in $id', async ({ id }) => {
    const mine = await call(id, world.plane.key)
    const theirs = await call(id, world.other.key, { orgId: world.other.orgId })
    expect([mine.status, theirs.status]).toEqual([200, 200])
    for (const name of Object.values(world.params)) {
      // Templates and the digests of shared snapshots are everybody's.
      if (name !== world.params.digest) expect(theirs.body).not.toContain(name)
    }
  })

  test.each(ofKeys.filter(({ endpoint }) => endpoint.access === 'fleet:admin'))('may not $id', async ({ id }) => {
    expect(await call(id, world.other.key)).toMatchObject({ status: 403, code: 'FORBIDDEN' })
  })

  test('cannot use what is another’s when it creates', async () => {
    expect(await call('createSession', world.other.key)).toMatchObject({ status: 404, code: 'SNAPSHOT_NOT_FOUND' })
  })
})

describe('the files', () => {
  const root = join(import.meta.dirname, '..')
  const own = ['packages', 'guest', 'test', 'bench', 'scripts', 'snapshots', 'examples']

  async function sources(form: RegExp): Promise<{ path: string; text: string; lines: number }[]> {
    const found = await Promise.all(
      own.map((folder) => readdir(join(root, folder), { recursive: true, withFileTypes: true }).catch(none)),
    )
    const paths = found
      .flat()
      .filter((entry) => entry.isFile() && form.test(entry.name))
      .map((entry) => relative(root, join(entry.parentPath, entry.name)))
      .filter((path) => !/node_modules|(^|\/)(dist|fixtures|generated)\/|\.gen\.ts$/.test(path))
    return Promise.all(
      paths.map(async (path) => {
        const text = await readFile(join(root, path), 'utf8')
        return { path, text, lines: text.split('\n').length - 1 }
      }),
    )
  }

  test('stay within the wall of 400 lines, the guest agent within 600 in all', async () => {
    const all = await sources(/\.(ts|tsx|mts|cjs|c|h|sh)$/)
    expect(all.length).toBeGreaterThan(100)
    expect(all.filter(({ lines }) => lines > 400).map(({ path, lines }) => `${path}: ${lines}`)).toEqual([])
    const guest = all.filter(({ path }) => /^guest\/[^/]+\.[ch]$/.test(path))
    expect(guest.length).toBeGreaterThan(0)
    expect(guest.reduce((sum, { lines }) => sum + lines, 0)).toBeLessThanOrEqual(600)
  })

  test('read the environment in the three config files only', async () => {
    const reading = (await sources(/\.tsx?$/))
      .filter(({ path }) => /^packages\/[^/]+\/src\//.test(path) && !/\.test\.ts$|\/testing\//.test(path))
      .filter(({ text }) =>
        /process\s*\.\s*env\b|process\s*\[\s*['"]env|\{[^}]*\benv\b[^}]*\}\s*(=\s*process\b|from 'node:process')/.test(
          text,
        ),
      )
      .map(({ path }) => path)
    expect(reading.sort()).toEqual(['cli', 'control-plane', 'worker'].map((name) => `packages/${name}/src/config.ts`))
  })
})

// Not every folder is there from the beginning.
function none(error: NodeJS.ErrnoException): [] {
  if (error.code === 'ENOENT') return []
  throw error
}
