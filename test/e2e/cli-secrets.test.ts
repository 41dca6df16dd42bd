import { spawn } from 'node:child_process'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { sql } from 'kysely'
import { afterAll, beforeAll, expect, test, vi } from 'vitest'
import { startTestControlPlane, type TestControlPlane } from '../support/control-plane.ts'
import { workerState } from '../support/world.ts'

const main = join(import.meta.dirname, '../../packages/cli/src/main.ts')

// Each step starts a process, which takes seconds where others keep the processors busy.
vi.setConfig({ testTimeout: 120_000 })

let plane: TestControlPlane
let worker: string
beforeAll(async () => {
  plane = await startTestControlPlane()
  worker = (await plane.enrolWorker(workerState)).credential
  const digest = `sha256:${'a'.repeat(64)}`
  await sql`insert into snapshots (id, version, digest, size_bytes) values ('minimal', 1, ${digest}, 1)`.execute(
    plane.services.db,
  )
})
afterAll(() => plane.close())

async function paws(args: string[], { stdin = '', env = {} }: { stdin?: string; env?: Record<string, string> } = {}) {
  const known = { PATH: process.env.PATH ?? '', HOME: '/nowhere', PAWS_URL: plane.url, PAWS_KEY: plane.key }
  const child = spawn(process.execPath, [main, ...args], { env: { ...known, ...env } })
  child.stdin.end(stdin)
  const ended = new Promise<number | null>((resolve) => child.on('close', resolve))
  const [stdout, stderr, code] = await Promise.all([text(child.stdout), text(child.stderr), ended])
  return { stdout, stderr, code }
}

const asWorker = (path: string, body: object) => plane.call('POST', `/worker/${path}`, { key: worker, body })

test('a secret comes through stdin, is listed without its value, and goes', async () => {
  expect(await paws(['secrets', 'set', 'KEY'], { stdin: 'the-secret-value\n' })).toEqual({
    stdout: 'KEY is stored.\n',
    stderr: 'Sessions may name it for any host: --host binds it to those that need it.\n',
    code: 0,
  })
  const listed = await paws(['secrets'])
  expect(listed.stdout).toMatch(/^NAME +HOSTS +CHANGED +CREATED\nKEY +any +/)
  const asJson = await paws(['secrets', 'list', '--json'])
  expect(JSON.parse(asJson.stdout)).toMatchObject({ secrets: [{ name: 'KEY', value: '***' }] })
  expect((await paws(['secrets', 'set', 'OTHER'], { stdin: '\n' })).stderr).toContain('The value is empty')
  expect(await paws(['secrets', 'set', 'OTHER', 'in-argv'])).toMatchObject({ code: 2 })
  await paws(['secrets', 'set', 'OTHER'], { stdin: 'x' })
  expect((await paws(['secrets', 'delete', 'OTHER'])).code).toBe(0)
  const gone = await paws(['secrets', 'delete', 'OTHER'])
  expect([gone.code, gone.stderr]).toEqual([1, expect.stringContaining('Secret "OTHER" does not exist')])
})

test('a secret that is bound to hosts is named for no others', async () => {
  const set = async (...options: string[]) =>
    (await paws(['secrets', 'set', 'BOUND', ...options], { stdin: 'bound-value' })).stdout
  const run = (host: string) => paws(['run', '--detach', '--credential', `${host}: x-api-key=secret:BOUND`, 'true'])
  const bound = 'BOUND is stored, for api.test *.sub.test only.\n'
  expect(await set('--host', 'API.test', '--host', '*.sub.test')).toBe(bound)
  expect(await set()).toBe(bound)
  expect((await paws(['secrets'])).stdout).toMatch(/^BOUND +api\.test \*\.sub\.test +/m)
  const refused = await run('evil.test')
  expect([refused.code, refused.stderr]).toEqual([
    125,
    expect.stringContaining('bound to hosts that evil.test is none of'),
  ])
  const both = await paws(['secrets', 'set', 'BOUND', '--any-host', '--host', 'api.test'], { stdin: 'x' })
  expect([both.code, both.stderr]).toEqual([2, expect.stringContaining("'--any-host' cannot be used with")])
  expect(await set('--any-host')).toBe('BOUND is stored.\n')
  expect((await paws(['secrets', 'delete', 'BOUND'])).code).toBe(0)
})

test('run says what gets out and what is added to it, with no value among its arguments', async () => {
  const options = [
    ...['--allow', 'preset:npm', '--allow', '*.sub.test', '--audit'],
    ...['--credential', 'API.test: x-api-key=secret:KEY'],
    ...['--credential', 'api.test: Authorization=Bearer env:FROM_HERE'],
    ...['--placeholder', 'bot.test: BOT_TOKEN=env:FROM_HERE'],
  ]
  const env = { FROM_HERE: 'value-from-here' }
  const started = await paws(['run', '--detach', ...options, 'true'], { env })
  expect(started.stderr).toBe('')
  const sessionId = started.stdout.trim()
  const claimed = await asWorker('claim', { sessions: 1, builds: 0, waitMs: 5000 })
  expect(claimed.body).toMatchObject({
    claims: [
      {
        sessionId,
        network: {
          allowOut: ['preset:npm', '*.sub.test'],
          credentials: {
            'api.test': { headers: { 'x-api-key': 'the-secret-value', Authorization: 'Bearer value-from-here' } },
            'bot.test': { placeholders: { BOT_TOKEN: 'value-from-here' } },
          },
          auditLog: true,
        },
      },
    ],
  })
  const shown = await paws(['sessions', 'show', sessionId])
  expect(shown.stdout).toContain('preset:npm *.sub.test api.test bot.test')

  const refusal = { decision: 'refused', reason: 'name-not-allowed', port: 53, host: 'evil.te\u001b[31mst' }
  const request = { decision: 'allowed', port: 443, host: 'api.test', method: 'GET', path: '/v1', status: 200 }
  const records = [refusal, { ...request, durationMs: 12, credential: true }].map((record, index) => ({
    at: `2026-01-02T03:04:0${index}.000Z`,
    ...record,
  }))
  const data = Buffer.from(JSON.stringify(records)).toString('base64')
  await asWorker(`sessions/${sessionId}/output`, { fence: 1, first: 1, chunks: [{ stream: 'egress', data }] })
  const table = (await paws(['egress', sessionId])).stdout.trim().split('\n')
  expect(table[0]).toMatch(/^TIME +DECISION +TO +METHOD +PATH +STATUS +TOOK +CREDENTIAL +REASON$/)
  expect(table[1]).toMatch(/^03:04:01.000 +allowed +api.test:443 +GET +\/v1 +200 +12 ms +added +-$/)
  // Nothing that a sandbox has sent moves the terminal's cursor or colours.
  expect(table[2]).toMatch(/^03:04:00.000 +refused +evil\.te\\x1b\[31mst:53 .*name-not-allowed$/)
  const refused = await paws(['egress', '--decision', 'refused', '--json', sessionId])
  expect(JSON.parse(refused.stdout)).toEqual({ requests: [records[0]] })
})

test('a value among the arguments is refused, and so is a variable that is not set', async () => {
  const inArgv = await paws(['run', '--credential', 'api.test: x-api-key=sk-value', 'true'])
  expect([inArgv.code, inArgv.stderr]).toEqual([2, expect.stringContaining('the value itself stays out of it')])
  expect(inArgv.stderr).not.toContain('sk-value')
  const unset = await paws(['run', '--credential', 'api.test: x-api-key=env:NOT_SET', 'true'])
  expect([unset.code, unset.stderr]).toEqual([2, expect.stringContaining('NOT_SET is not set here')])
  const none = await paws(['run', '--credential', 'api.test: x-api-key=secret:NONE', 'true'])
  expect([none.code, none.stderr]).toEqual([125, expect.stringContaining('Stored secret "NONE" does not exist')])
})

test('the data key is replaced by one command', async () => {
  const done = await paws(['orgs', 'rotate-data-key'])
  expect(done).toMatchObject({
    code: 0,
    stdout: expect.stringMatching(/^Data key 2 is in use; \d+ secrets were sealed/),
  })
})
