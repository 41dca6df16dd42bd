import { afterAll, beforeAll, expect, test } from 'vitest'
import { startTestControlPlane, type TestControlPlane } from '../../../../test/support/control-plane.ts'

let plane: TestControlPlane
beforeAll(async () => {
  plane = await startTestControlPlane()
})
afterAll(() => plane.close())

interface SecretAnswer {
  name: string
  value: string
  hosts?: string[]
  createdAt: string
  updatedAt: string
}
const put = (name: string, value: unknown = 'a value', key = plane.key) =>
  plane.call<SecretAnswer>('PUT', `/v1/secrets/${encodeURIComponent(name)}`, { body: { value }, key })
const list = async (key = plane.key) =>
  (await plane.call<{ secrets: SecretAnswer[] }>('GET', '/v1/secrets', { key })).body.secrets
const remove = (name: string) => plane.call('DELETE', `/v1/secrets/${encodeURIComponent(name)}`)

test('a secret is stored, replaced, listed by name and deleted, and its value is never read', async () => {
  const made = await put('b.token')
  expect(made).toMatchObject({ status: 200, body: { name: 'b.token', value: '***' } })
  await put('A_TOKEN')
  const replaced = await put('b.token', 'another value')
  expect(replaced.body.createdAt).toBe(made.body.createdAt)
  expect(Date.parse(replaced.body.updatedAt)).toBeGreaterThan(Date.parse(made.body.updatedAt))
  expect((await list()).map(({ name, value }) => [name, value])).toEqual([
    ['A_TOKEN', '***'],
    ['b.token', '***'],
  ])
  const rows = await plane.database.db.selectFrom('secrets').selectAll().execute()
  for (const { sealed } of rows) expect(sealed.toString('latin1')).not.toContain('value')
  expect((await remove('b.token')).status).toBe(204)
  expect(await remove('b.token')).toMatchObject({
    status: 404,
    body: { error: { code: 'SECRET_NOT_FOUND', message: expect.stringContaining('"b.token"') } },
  })
  expect((await list()).map(({ name }) => name)).toEqual(['A_TOKEN'])
})

test('a name belongs to the organization that gave it', async () => {
  const other = await plane.otherOrganization()
  await put('SHARED', 'mine')
  await put('SHARED', 'theirs', other.key)
  expect((await list(other.key)).map(({ name }) => name)).toEqual(['SHARED'])
  expect((await remove('SHARED')).status).toBe(204)
  expect(await list(other.key)).toHaveLength(1)
})

test.each(['1st', 'with space', '-', 'x'.repeat(101), 'ü', 'a/b'])('%s is no name of a secret', async (name) => {
  expect(await put(name)).toMatchObject({ status: 404, body: { error: { code: 'SECRET_NOT_FOUND' } } })
  expect(await remove(name)).toMatchObject({ status: 404, body: { error: { code: 'SECRET_NOT_FOUND' } } })
})

test.each([
  ['several lines', 'a\nb'],
  ['nothing', ''],
  ['no text', 5],
  ['too much', 'x'.repeat(16_385)],
])('%s is no value of a secret, and the answer does not repeat it', async (_, value) => {
  const { status, body } = await put('X', value)
  expect(status).toBe(400)
  expect(JSON.stringify(body)).toContain('"path":"value"')
  if (typeof value === 'string' && value !== '') expect(JSON.stringify(body)).not.toContain(value.slice(0, 3))
})

const bind = async (hosts?: unknown) => {
  const { status, body } = await plane.call<
    SecretAnswer & { error?: { details: { path: string; message: string }[] } }
  >('PUT', '/v1/secrets/BOUND', { body: { value: 'a value', hosts } })
  return { status, hosts: body.hosts, details: body.error?.details }
}

test('a new value keeps the hosts of the one before, unless others or none are said', async () => {
  expect(await bind()).toEqual({ status: 200 })
  expect(await bind(['API.test', '*.Sub.test'])).toEqual({ status: 200, hosts: ['api.test', '*.sub.test'] })
  expect(await bind()).toEqual({ status: 200, hosts: ['api.test', '*.sub.test'] })
  expect((await list()).find(({ name }) => name === 'BOUND')).toMatchObject({ hosts: ['api.test', '*.sub.test'] })
  expect(await bind(['b.test'])).toEqual({ status: 200, hosts: ['b.test'] })
  expect(await bind(null)).toEqual({ status: 200 })
  expect((await list()).find(({ name }) => name === 'BOUND')).not.toHaveProperty('hosts')
})

test.each<[string, unknown, string, string]>([
  ['an empty list', [], 'hosts', '>=1'],
  ['a long one', Array.from({ length: 51 }, (_, index) => `h${index}.test`), 'hosts', '<=50'],
  ['a URL', ['a.test', 'https://api.test'], 'hosts.1', 'Not the name of a host: give a name like api.example.com'],
  ['a preset', ['preset:npm'], 'hosts.0', 'Not the name of a host'],
  ['every host', ['*'], 'hosts.0', 'Not the name of a host'],
  ['a text', 'api.test', 'hosts', 'expected array'],
])('%s is no list of hosts, and what was bound stays so', async (_, wrong, path, message) => {
  await bind(['b.test'])
  const details = [{ path, message: expect.stringContaining(message) }]
  expect(await bind(wrong)).toEqual({ status: 400, details })
  expect(await bind()).toEqual({ status: 200, hosts: ['b.test'] })
})
