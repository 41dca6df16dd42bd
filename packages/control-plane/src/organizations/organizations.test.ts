import { mkdtemp, readFile, rm, stat } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import type { NewApiKey, Organization, WebhookSecret } from '@paws/api'
import { sql } from 'kysely'
import { afterAll, beforeAll, expect, test } from 'vitest'
import type { z } from 'zod'
import { startTestControlPlane, type TestControlPlane } from '../../../../test/support/control-plane.ts'
import { testDatabase } from '../../../../test/support/database.ts'
import { openVault } from '../vault/index.ts'
import { ensureFirstOrganization } from './index.ts'
import { isWellFormedKey, makeKey } from './key-format.ts'

type Key = z.output<typeof NewApiKey>
type Secret = z.output<typeof WebhookSecret>

let first: TestControlPlane
/** A second control plane against the same database: what one does counts at once for both. */
let second: TestControlPlane
let folder: string
beforeAll(async () => {
  const database = await testDatabase()
  folder = await mkdtemp(join(tmpdir(), 'paws-orgs-'))
  first = await startTestControlPlane({ database, dataFolder: folder })
  second = await startTestControlPlane({ database, dataFolder: folder })
})
afterAll(async () => {
  await second.close()
  await first.close()
  await first.database.close()
  await rm(folder, { recursive: true })
})

const keysPath = () => `/v1/orgs/${first.orgId}/api-keys`
const makeApiKey = async (body: object, key = first.key) =>
  (await first.call<Key>('POST', keysPath(), { key, body: { name: 'test', ...body } })).body

test('a key has a checksum: a typing mistake is told without asking the database', () => {
  const key = makeKey()
  expect(key).toMatch(/^sk_live_[0-9A-Za-z]{36}$/)
  expect(isWellFormedKey(key)).toBe(true)
  const mistaken = key.replace(/.$/, (last) => (last === 'a' ? 'b' : 'a'))
  expect(isWellFormedKey(mistaken)).toBe(false)
  expect(new Set(Array.from({ length: 100 }, makeKey)).size).toBe(100)
})

test('the first start makes one organization, however many control planes start, and one key file', async () => {
  const { db, close } = await testDatabase()
  const vault = await openVault(db, [Buffer.alloc(32, 1)])
  const file = join(folder, 'once/first.key')
  try {
    const made = await Promise.all(Array.from({ length: 4 }, () => ensureFirstOrganization(db, vault, file)))
    expect(made.filter(Boolean)).toEqual([true])
    expect((await stat(file)).mode & 0o777).toBe(0o600)
    expect(isWellFormedKey((await readFile(file, 'utf8')).trim())).toBe(true)
    expect(await db.selectFrom('apiKeys').selectAll().execute()).toHaveLength(1)
  } finally {
    await close()
  }
})

test('a key is shown whole once, kept as a digest, and listed by its visible parts', async () => {
  const made = await makeApiKey({ name: 'shown once', scopes: ['sessions:read'] })
  const { body } = await first.call<{ apiKeys: Key[] }>('GET', keysPath())
  const listed = body.apiKeys.find(({ id }) => id === made.id)
  expect(listed).toEqual({
    id: made.id,
    name: 'shown once',
    prefix: made.key.slice(0, 12),
    lastFour: made.key.slice(-4),
    scopes: ['sessions:read'],
    createdAt: made.createdAt,
  })
  const { rows } = await sql`select k::text from api_keys k`.execute(first.database.db)
  expect(JSON.stringify(rows)).not.toContain(made.key.slice(12, -4))
})

test('a key works until it is revoked, and from then on nowhere', async () => {
  const { key, id } = await makeApiKey({})
  for (const plane of [first, second]) expect((await plane.call('GET', '/v1/whoami', { key })).status).toBe(200)
  expect((await first.call('DELETE', `${keysPath()}/${id}`)).status).toBe(204)
  for (const plane of [second, first]) {
    const refused = await plane.call('GET', '/v1/whoami', { key })
    expect(refused).toMatchObject({ status: 401, body: { error: { code: 'UNAUTHORIZED' } } })
  }
  expect((await first.call('DELETE', `${keysPath()}/${id}`)).status).toBe(204)
})

test('a key that has expired works no longer', async () => {
  const { key } = await makeApiKey({ expiresAt: new Date(Date.now() + 500).toISOString() })
  expect((await first.call('GET', '/v1/whoami', { key })).status).toBe(200)
  await sleep(550)
  expect((await first.call('GET', '/v1/whoami', { key })).status).toBe(401)
  const past = await first.call('POST', keysPath(), { body: { name: 'x', expiresAt: '2020-01-01T00:00:00Z' } })
  expect(past.body.error.details).toEqual([{ path: 'expiresAt', message: 'Must be in the future' }])
})

test('a rotated key overlaps with the new one, then ends', async () => {
  const old = await makeApiKey({ scopes: ['sessions:read'] })
  const path = `${keysPath()}/${old.id}/rotate`
  const made = await first.call<Key>('POST', path, { body: { overlapMs: 400 } })
  expect(made).toMatchObject({ status: 201, body: { name: 'test', scopes: ['sessions:read'] } })
  for (const { key } of [old, made.body]) expect((await second.call('GET', '/v1/whoami', { key })).status).toBe(200)
  await sleep(500)
  expect((await second.call('GET', '/v1/whoami', { key: old.key })).status).toBe(401)
  expect((await second.call('GET', '/v1/whoami', { key: made.body.key })).status).toBe(200)
  const again = await first.call('POST', path, { body: {} })
  expect(again).toMatchObject({ status: 409, body: { error: { code: 'INVALID_STATE' } } })
  expect(again.body.error.details).toMatchObject([{ current: 'expired', allowed: ['active'] }])
})

test('a key gives no more than it has, and a refusal names the scope', async () => {
  const { key } = await makeApiKey({ scopes: ['organizations:write'] })
  const wider = await first.call('POST', keysPath(), { key, body: { name: 'x', scopes: ['sessions:write'] } })
  expect(wider).toMatchObject({ status: 403, body: { error: { code: 'FORBIDDEN' } } })
  expect(wider.body.error.message).toContain('sessions:write')
  expect((await makeApiKey({}, key)).scopes).toEqual(['organizations:write'])
  const reading = await first.call('GET', keysPath(), { key })
  expect(reading.status).toBe(403)
  expect(reading.body.error.message).toContain('organizations:read')
})

test('rotating a key gives no more than the one who asks has', async () => {
  const wider = await makeApiKey({ scopes: ['organizations:read', 'sessions:write'] })
  const { key } = await makeApiKey({ scopes: ['organizations:read', 'organizations:write'] })
  const path = `${keysPath()}/${wider.id}/rotate`
  const refused = await first.call('POST', path, { key, body: { overlapMs: 0 } })
  expect(refused).toMatchObject({ status: 403, body: { error: { code: 'FORBIDDEN' } } })
  expect(refused.body.error.details).toEqual([{ path: 'scopes', message: 'sessions:write' }])
  expect((await first.call('GET', '/v1/whoami', { key: wider.key })).status).toBe(200)

  const { id } = await makeApiKey({ scopes: ['organizations:read'] })
  expect((await first.call('POST', `${keysPath()}/${id}/rotate`, { key, body: {} })).status).toBe(201)
})

test('only the operator can run the fleet, whatever a key of another organization is given', async () => {
  const { orgId, key } = await first.otherOrganization()
  const wish = { key, body: { name: 'x', scopes: ['fleet:admin'] } }
  expect((await first.call('POST', `/v1/orgs/${orgId}/api-keys`, wish)).status).toBe(403)
  await sql`update api_keys set scopes = array_append(scopes, 'fleet:admin') where org_id = ${orgId}`.execute(
    first.database.db,
  )
  const fresh = await startTestControlPlane({ database: first.database, dataFolder: folder })
  try {
    expect((await fresh.call('GET', '/v1/fleet', { key })).body.error).toMatchObject({ code: 'FORBIDDEN' })
  } finally {
    await fresh.close()
  }
})

test('when a key was last used is noted, off the path of the request', async () => {
  const { key, id } = await makeApiKey({})
  await first.call('GET', '/v1/whoami', { key })
  const used = async () =>
    (await first.call<{ apiKeys: Key[] }>('GET', keysPath())).body.apiKeys.find((each) => each.id === id)?.lastUsedAt
  await expect.poll(used).toBeDefined()
})

test('lists are paged, newest first, and refuse a cursor that is none', async () => {
  const { orgId, key } = await first.otherOrganization()
  const path = `/v1/orgs/${orgId}/api-keys`
  for (let i = 0; i < 4; i++) await first.call('POST', path, { key, body: { name: `key ${i}` } })
  const seen: string[] = []
  let cursor: string | undefined
  do {
    const query = `?limit=2${cursor ? `&cursor=${cursor}` : ''}`
    const { body } = await first.call<{ apiKeys: Key[]; nextCursor?: string }>('GET', path + query, { key })
    seen.push(...body.apiKeys.map(({ name }) => name))
    cursor = body.nextCursor
  } while (cursor)
  expect(seen).toEqual(['key 3', 'key 2', 'key 1', 'key 0', 'First key'])
  const bad = await first.call('GET', `${path}?cursor=nonsense`, { key })
  expect(bad.body.error.details).toMatchObject([{ path: 'cursor' }])
})

test('an organization is renamed by its own key', async () => {
  const path = `/v1/orgs/${first.orgId}`
  const { body } = await first.call<z.output<typeof Organization>>('PATCH', path, { body: { name: ' Ours ' } })
  expect(body).toMatchObject({ id: first.orgId, name: 'Ours', operator: true })
  expect((await first.call<{ name: string }>('GET', path)).body.name).toBe('Ours')
})

test('the webhook secret is made once, sealed, and rotates with an overlap', async () => {
  const path = `/v1/orgs/${first.orgId}/webhook-secret`
  const reads = await Promise.all([first, second, first].map((plane) => plane.call<Secret>('GET', path)))
  const [{ secret }] = reads.map(({ body }) => body) as [Secret]
  expect(new Set(reads.map(({ body }) => body.secret))).toEqual(new Set([secret]))
  expect(Buffer.from(secret.replace(/^whsec_/, ''), 'base64')).toHaveLength(32)
  const { body: rotated } = await first.call<Secret>('POST', `${path}/rotate`, { body: { overlapMs: 300 } })
  expect(rotated.secret).not.toBe(secret)
  expect(rotated.previous).toMatchObject({ secret })
  await sleep(350)
  expect((await second.call<Secret>('GET', path)).body).toEqual({ secret: rotated.secret })
  const { rows } = await sql`select encode(sealed, 'escape') as sealed from webhook_secrets`.execute(first.database.db)
  expect(JSON.stringify(rows)).not.toContain(secret.slice(6))
})
