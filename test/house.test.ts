import { readdir, readFile } from 'node:fs/promises'
import { join, relative } from 'node:path'
import { endpoints, isBytesBody, type OperationId } from '@paws/api'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { callApi } from './support/control-plane.ts'
import { sendRaw } from './support/http.ts'
import { callOperation, operations } from './support/operations.ts'
import { fillPath, openWorld, type World } from './support/world.ts'

const ofKeys = operations.filter(({ endpoint }) => !['public', 'worker', 'enrolment'].includes(endpoint.access))
const ofWorkers = operations.filter(({ endpoint }) => ['worker', 'enrolment'].includes(endpoint.access))

let world: World
beforeAll(async () => {
  world = await openWorld()
})
afterAll(() => world.close())

const call = (id: OperationId, key: string | null, params: Record<string, string> = {}) =>
  callOperation(world, id, { key, params })

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
  // Whoever puts something makes it: see below.
  const making: OperationId[] = ['putSecret']
  const onObjects = ofKeys.filter(
    ({ id, endpoint }) => endpoint.path.includes('{') && endpoint.access !== 'fleet:admin' && !making.includes(id),
  )
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

  const lists = ofKeys.filter(
    ({ id, endpoint }) =>
      id.startsWith('list') && endpoint.access !== 'fleet:admin' && !endpoint.path.includes('{sessionId}'),
  )
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

  test('has names of its own for what it puts', async () => {
    const { secretName = '' } = world.params
    const read = async () => (await call('listSecrets', world.plane.key)).body
    const before = await read()
    expect((await call('putSecret', world.other.key)).status).toBe(200)
    expect((await call('deleteSecret', world.other.key)).status).toBe(204)
    expect(before).toContain(secretName)
    expect(await read()).toBe(before)
  })

  test('cannot use what is another’s when it creates', async () => {
    expect(await call('createSession', world.other.key)).toMatchObject({ status: 404, code: 'SNAPSHOT_NOT_FOUND' })
  })
})

describe('a worker', () => {
  test.each(ofWorkers.filter(({ endpoint }) => endpoint.path.includes('{')))(
    'gets 404 from $id for what is not there',
    async ({ id }) => {
      const none = { sessionId: 'none', jobId: 'none', digest: 'none', file: 'none' }
      const answer = await callOperation(world, id, { key: world.worker.credential, params: none })
      expect(answer).toMatchObject({ status: 404, code: expect.stringMatching(/_NOT_FOUND$/) })
    },
  )

  test('that has claimed a session and gone is said to be unreachable', async () => {
    const { key } = world.plane
    const made = await callOperation(world, 'createSession', { key })
    const { sessionId } = JSON.parse(made.body) as { sessionId: string }
    const body = { sessions: 5, builds: 0, waitMs: 1000 }
    const claimed = await callApi(`${world.plane.url}/worker/claim`, 'POST', { key: world.worker.credential, body })
    expect(JSON.stringify(claimed.body)).toContain(sessionId)
    const reaching = ['execInSession', 'openTerminal', 'readSessionFile', 'writeSessionFile', 'cancelSession'] as const
    const answers = await Promise.all(reaching.map((id) => callOperation(world, id, { key, params: { sessionId } })))
    for (const answer of answers) expect(answer).toMatchObject({ status: 503, code: 'WORKER_UNREACHABLE' })
    // Cancelling waits for half a minute: the worker could come back.
  }, 60_000)
})

describe('every operation that takes JSON', () => {
  const taking = operations.filter(({ endpoint }) => endpoint.body && !isBytesBody(endpoint.body))

  /** A key or whatever else the operation asks of its caller. */
  async function credential(id: OperationId): Promise<string> {
    const { access } = endpoints[id]
    if (access === 'enrolment') return world.enrolmentToken()
    return access === 'worker' ? world.worker.credential : world.plane.key
  }

  test.each(taking)('$id refuses another type', async ({ id }) => {
    const headers = { 'content-type': 'text/plain' }
    const refused = await callOperation(world, id, { key: await credential(id), headers })
    expect(refused).toMatchObject({ status: 415, code: 'UNSUPPORTED_MEDIA_TYPE' })
  })

  const limited = operations.filter(({ endpoint }) => endpoint.body)
  test.each(limited)('$id refuses by its length a body that is too long', async ({ id, endpoint }) => {
    const path = fillPath(endpoint.path, world.params)
    const head = [
      `${endpoint.method.toUpperCase()} ${path}?path=/x HTTP/1.1`,
      'Host: x',
      'Connection: close',
      `Authorization: Bearer ${await credential(id)}`,
      'Content-Type: application/json',
      `Content-Length: ${1024 ** 4}`,
    ]
    const answer = await sendRaw(Number(new URL(world.plane.url).port), `${head.join('\r\n')}\r\n\r\n`)
    expect(answer).toMatch(/^HTTP\/1.1 413 .*PAYLOAD_TOO_LARGE/s)
  })
})

describe('every operation that creates or triggers', () => {
  const creating = operations.filter(({ endpoint }) => endpoint.idempotent)

  test.each(creating)('$id honours an Idempotency-Key', async ({ id }) => {
    const { key } = world.plane
    const headers = { 'idempotency-key': `house ${id}` }
    const first = await callOperation(world, id, { key, headers })
    expect(first.status).toBeLessThan(300)
    expect(await callOperation(world, id, { key, headers })).toEqual(first)

    const other = { after: ' ', params: { snapshotId: 'minimal', orgId: world.other.orgId } }
    const conflict = await callOperation(world, id, { key, headers, ...other })
    expect(conflict).toMatchObject({ status: 422, code: 'IDEMPOTENCY_CONFLICT' })

    // As if the first were still under way.
    await world.plane.database.db
      .updateTable('idempotencyKeys')
      .set({ status: null, sealedAnswer: null })
      .where('operation', '=', id)
      .execute()
    const inFlight = await callOperation(world, id, { key, headers })
    expect(inFlight).toMatchObject({ status: 409, code: 'IDEMPOTENCY_CONFLICT' })

    const malformed = await callOperation(world, id, { key, headers: { 'idempotency-key': 'x'.repeat(256) } })
    expect(malformed).toMatchObject({ status: 400, code: 'VALIDATION_ERROR' })
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

  test('name in docs/settings.md every setting that is read, and no other', async () => {
    const settings = (text: string) => [...new Set(text.match(/\bPAWS_[A-Z_]+/g))].sort()
    const reading = await sources(/^config\.ts$/)
    const text = await readFile(join(root, 'docs/settings.md'), 'utf8')
    expect(settings(text)).toEqual(settings(reading.map((file) => file.text).join('\n')))
  })
})

// Not every folder is there from the beginning.
function none(error: NodeJS.ErrnoException): [] {
  if (error.code === 'ENOENT') return []
  throw error
}
