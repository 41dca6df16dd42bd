import { spawn } from 'node:child_process'
import { mkdtemp, rm, stat } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { sql } from 'kysely'
import { afterAll, beforeAll, expect, test, vi } from 'vitest'
import { startTestControlPlane, type TestControlPlane } from '../support/control-plane.ts'
import { workerState } from '../support/world.ts'

const main = join(import.meta.dirname, '../../packages/cli/src/main.ts')
const state = { ...workerState, limitations: ['It counts no pages.'] }

// Each step of a test starts a process, which takes seconds where others keep the processors busy.
vi.setConfig({ testTimeout: 120_000 })

let plane: TestControlPlane
let home: string
let credential: string

beforeAll(async () => {
  plane = await startTestControlPlane()
  home = await mkdtemp(join(tmpdir(), 'paws-cli-'))
  credential = (await plane.enrolWorker(state)).credential
  // The command line cares for none of a snapshot's bytes.
  await sql`insert into snapshots (id, version, digest, size_bytes) values ('minimal', 1, ${`sha256:${'a'.repeat(64)}`}, 1)`.execute(
    plane.services.db,
  )
})
afterAll(async () => {
  await plane.close()
  await rm(home, { recursive: true })
})

/** Starts the command line as a user would, with nothing of this machine's own settings. */
function start(args: string[], { env = {} }: { env?: Record<string, string> } = {}) {
  const known = { PAWS_URL: plane.url, PAWS_KEY: plane.key }
  const place = {
    PATH: process.env.PATH,
    HOME: home,
    XDG_CONFIG_HOME: join(home, 'config'),
    PAWS_DATA: join(home, 'data'),
  }
  const child = spawn(process.execPath, [main, ...args], { env: { ...place, ...known, ...env } })
  const seen = { stdout: '', stderr: '' }
  child.stdout.on('data', (bytes) => {
    seen.stdout += bytes
  })
  child.stderr.on('data', (bytes) => {
    seen.stderr += bytes
  })
  const ended = new Promise<typeof seen & { code: number | null }>((resolve) => {
    child.on('close', (code) => resolve({ ...seen, code }))
  })
  return { child, seen, ended }
}

async function paws(args: string[], options: { env?: Record<string, string>; stdin?: string } = {}) {
  const { child, ended } = start(args, options)
  child.stdin.end(options.stdin ?? '')
  return ended
}

interface Claim {
  sessionId: string
  fence: number
  script: string
  env: Record<string, string>
  resources: object
  timeoutMs: number
}

const asWorker = (path: string, body: object) =>
  plane.call<Record<string, unknown>>('POST', path, { key: credential, body })

/** Plays the worker: what it does with a sandbox is other tests' business. */
async function claim(): Promise<Claim> {
  const { body } = await asWorker('/worker/claim', { sessions: 1, builds: 0, waitMs: 20_000 })
  const [claimed] = body.claims as Claim[]
  if (!claimed) throw new Error('No session came to be claimed.')
  return claimed
}

const chunk = (stream: string, text: string) => ({ stream, data: Buffer.from(text).toString('base64') })

async function say({ sessionId, fence }: Claim, first: number, stream: string, text: string) {
  const { status } = await asWorker(`/worker/sessions/${sessionId}/output`, {
    fence,
    first,
    chunks: [chunk(stream, text)],
  })
  expect(status).toBe(200)
}

async function finish({ sessionId, fence }: Claim, first: number, outcome: object) {
  const whole = { durationMs: 5, ...outcome }
  const { status } = await asWorker(`/worker/sessions/${sessionId}/finish`, {
    fence,
    outcome: whole,
    first,
    chunks: [],
  })
  expect(status).toBe(200)
}

test('run shows output live on the right streams and ends with the exit code of the script', async () => {
  const options = ['-e', 'A=1=2', '-m', 'issue=7', '-t', '90s', '--vcpus', '1', '--memory', '1g', '--disk', '300']
  const { child, seen, ended } = start(['run', ...options, 'echo "ünï"'])
  child.stdin.end()
  const claimed = await claim()
  expect(claimed).toMatchObject({
    script: 'echo "ünï"',
    env: { A: '1=2' },
    resources: { vcpus: 1, memoryMB: 1024, diskMB: 300 },
    timeoutMs: 90_000,
  })
  await say(claimed, 1, 'stdout', 'ünï\n')
  await expect.poll(() => seen.stdout).toBe('ünï\n')
  await say(claimed, 2, 'stderr', 'oh\n')
  await finish(claimed, 3, { status: 'failed', exitCode: 3 })
  expect(await ended).toEqual({ stdout: 'ünï\n', stderr: 'oh\n', code: 3 })

  const found = await paws(['sessions', '-m', 'issue=7', '--json'])
  expect(JSON.parse(found.stdout).sessions).toMatchObject([{ sessionId: claimed.sessionId, exitCode: 3 }])
  expect(await paws(['logs', claimed.sessionId])).toEqual({ stdout: 'ünï\n', stderr: 'oh\n', code: 0 })
  expect(await paws(['logs', '-f', '--stderr', claimed.sessionId])).toEqual({ stdout: 'oh\n', stderr: '', code: 0 })
  expect((await paws(['sessions', 'get', claimed.sessionId])).stdout).toMatch(/status +failed\nexit code +3\n/)
})

test('run takes the script from stdin, and as JSON prints the ended session alone', async () => {
  const { child, ended } = start(['run', '--json'])
  child.stdin.end('#!/bin/sh\nexit 0\n')
  const claimed = await claim()
  expect(claimed.script).toBe('#!/bin/sh\nexit 0\n')
  await say(claimed, 1, 'stdout', 'x')
  await finish(claimed, 2, { status: 'completed', exitCode: 0, output: { a: 1 } })
  const { stdout, code } = await ended
  expect(code).toBe(0)
  expect(JSON.parse(stdout)).toMatchObject({ status: 'completed', stdout: 'x', output: { a: 1 } })
})

test('Ctrl-C cancels the session, and the command ends with 130 once it is gone', async () => {
  const { child, seen, ended } = start(['run', 'sleep 60'])
  const claimed = await claim()
  await say(claimed, 1, 'stdout', 'begun')
  await expect.poll(() => seen.stdout).toBe('begun')
  child.kill('SIGINT')
  await expect
    .poll(
      async () =>
        (
          await asWorker('/worker/heartbeat', {
            state,
            held: [{ kind: 'session', id: claimed.sessionId, fence: claimed.fence }],
          })
        ).body.cancel,
    )
    .toEqual([claimed.sessionId])
  await finish(claimed, 2, { status: 'cancelled' })
  const { stderr, code } = await ended
  expect(code).toBe(130)
  expect(stderr).toContain(`session ${claimed.sessionId} was cancelled.`)
})

test.each([
  ['timeout', { status: 'timeout' }, 124, /ran past its 600 s\. --timeout allows more/],
  [
    'a lost sandbox',
    { status: 'failed', error: { code: 'SANDBOX_LOST', message: 'It is gone.' } },
    125,
    /It is gone\./,
  ],
])('%s has an exit code of its own', async (_, outcome, code, says) => {
  const running = paws(['run', 'x'])
  await finish(await claim(), 1, outcome)
  const ended = await running
  expect(ended.code).toBe(code)
  expect(ended.stderr).toMatch(says)
})

test('a detached run prints the id; a pending session can be cancelled', async () => {
  const { stdout, code } = await paws(['run', '-d', 'x'])
  expect(code).toBe(0)
  expect(await paws(['sessions', 'cancel', stdout.trim()])).toEqual({
    stdout: `${stdout.trim()} cancelled\n`,
    stderr: '',
    code: 0,
  })
})

test('what is refused says what, why and what to do, and never looks like the exit code of a script', async () => {
  const unknown = await paws(['run', '--snapshot', 'nod', 'x'])
  expect(unknown.code).toBe(125)
  expect(unknown.stderr).toMatch(/^paws: Snapshot "nod" .*minimal/)
  const invalid = await paws(['run', '--vcpus', '99', 'x'])
  expect(invalid.code).toBe(125)
  expect(invalid.stderr).toMatch(/resources\.vcpus: /)
  const wrongKey = await paws(['whoami'], { env: { PAWS_KEY: 'sk_live_wrong' } })
  expect(wrongKey.code).toBe(1)
  expect(wrongKey.stderr).toContain('run "paws login"')
  const asJson = await paws(['sessions', 'get', 'nothing', '--json'])
  expect(JSON.parse(asJson.stderr)).toMatchObject({ error: { code: 'SESSION_NOT_FOUND', status: 404 } })
  expect(asJson.stdout).toBe('')
  for (const wrong of [['run', '--timeout', '30', 'x'], ['exec', 'x'], ['cp', 'a', 'b'], ['nonsense']]) {
    expect(await paws(wrong)).toMatchObject({ code: 2, stdout: '' })
  }
})

test('exec and cp say why they can do nothing with an ended session', async () => {
  const { stdout } = await paws(['run', '-d', 'x'])
  await paws(['sessions', 'cancel', stdout.trim()])
  const exec = await paws(['exec', stdout.trim(), '--', 'ls', '-l'])
  expect(exec).toMatchObject({ code: 125, stdout: '' })
  expect(exec.stderr).toMatch(/cancelled/)
  const copy = await paws(['cp', `${stdout.trim()}:x`, join(home, 'x')])
  expect(copy.code).toBe(1)
  await expect(stat(join(home, 'x'))).rejects.toThrow('ENOENT')
})

test('a key is made, listed, rotated and revoked, and shown only when made', async () => {
  const made = await paws(['keys', 'create', 'ci', '--scope', 'sessions:read', '--expires', '90d'])
  const key = made.stdout.trim()
  expect(key).toMatch(/^sk_live_/)
  expect((await paws(['whoami', '--json'], { env: { PAWS_KEY: key } })).stdout).toContain('"scopes":["sessions:read"]')
  const list = await paws(['keys', '--json'])
  expect(list.stdout).not.toContain(key)
  const { id } = JSON.parse(list.stdout).apiKeys.find((one: { name: string }) => one.name === 'ci')
  const rotated = JSON.parse((await paws(['keys', 'rotate', id, '--overlap', '0ms', '--json'])).stdout)
  expect((await paws(['whoami'], { env: { PAWS_KEY: key } })).code).toBe(1)
  expect((await paws(['keys', 'revoke', rotated.id])).code).toBe(0)
  expect((await paws(['whoami'], { env: { PAWS_KEY: rotated.key } })).code).toBe(1)
  expect((await paws(['keys', 'list'])).stdout).toMatch(/ci +sk_live_\S+ +revoked/)
})

test('organizations are made, shown and renamed; their webhook secret is replaced', async () => {
  const made = JSON.parse((await paws(['orgs', 'create', 'acme', '--json'])).stdout)
  const env = { PAWS_KEY: made.apiKey.key }
  expect((await paws(['orgs', 'rename', 'acme 2'], { env })).stdout).toContain('acme 2')
  expect((await paws(['orgs', 'show'], { env })).stdout).toMatch(/name +acme 2/)
  expect((await paws(['orgs', 'list'])).stdout).toContain('acme 2')
  const before = (await paws(['orgs', 'webhook-secret'], { env })).stdout
  const after = JSON.parse((await paws(['orgs', 'webhook-secret', '--rotate', '--json'], { env })).stdout)
  expect(after.secret).toMatch(/^whsec_/)
  expect(after.previous.secret).toBe(before.trim())
})

test('the fleet is shown with what its hosts cannot enforce; workers drain and go', async () => {
  // A worker that is not heard of for half a minute counts as unhealthy, and so long ago may it have enrolled.
  await asWorker('/worker/heartbeat', { state, held: [] })
  const shown = await paws(['fleet'])
  expect(shown.stdout).toMatch(/workers +1 healthy of 1\n/)
  expect(shown.stdout).toMatch(/by-hand +healthy +0\/5 +process/)
  expect(shown.stderr).toContain('by-hand: It counts no pages.')
  const { stdout: token } = await paws(['fleet', 'token', '--expires', '10m'])
  const second = { name: 'second', state }
  expect((await plane.call('POST', '/worker/enrol', { key: token.trim(), body: second })).status).toBe(201)
  expect((await paws(['fleet', 'drain', 'second'])).stdout).toContain('second is draining; 0 sessions still run there.')
  expect((await paws(['fleet', 'undrain', 'second'])).stdout).toBe('second takes sessions again.\n')
  expect((await paws(['fleet', 'remove', 'second'])).code).toBe(0)
  expect((await paws(['fleet', 'workers', '--json'])).stdout).not.toContain('second')
})

test('snapshots and templates are listed', async () => {
  expect((await paws(['snapshots'])).stdout).toMatch(/minimal +ready +1 /)
  expect((await paws(['snapshots', 'templates'])).stdout).toContain('minimal')
  expect((await paws(['snapshots', 'get', 'minimal'])).stdout).toMatch(/digest +sha256:a{64}/)
})

test('a config is made from a script, changed in part, shown and deleted', async () => {
  const script = '#!/bin/bash\necho "ünï"\n'
  const create = [
    'snapshots',
    'create',
    'tools',
    '-t',
    'node',
    '--require',
    'preset:npm',
    'EXAMPLE.com',
    '--memory',
    '1g',
  ]
  const none = await paws(create)
  expect(none).toMatchObject({ code: 2, stderr: expect.stringContaining('Give its file by --setup') })
  const made = await paws([...create, '--setup', '-'], { stdin: script })
  expect(made).toEqual({ code: 0, stdout: 'tools\n', stderr: 'Build it with: paws snapshots build tools\n' })
  const config = {
    ...{ id: 'tools', template: 'node', setup: script, isolation: 'any' },
    requiredDomains: ['preset:npm', 'example.com'],
    resources: { vcpus: 2, memoryMB: 1024, diskMB: 10_240 },
  }
  const list = async () => JSON.parse((await paws(['snapshots', 'configs', '--json'])).stdout).configs
  expect(await list()).toMatchObject([config])
  const changed = await paws(['snapshots', 'edit', 'tools', '--no-require', '--vcpus', '1', '--json'])
  const wanted = { ...config, requiredDomains: [], resources: { ...config.resources, vcpus: 1 } }
  expect(JSON.parse(changed.stdout)).toMatchObject(wanted)
  expect((await paws(['snapshots', 'configs', 'tools'])).stdout).toMatch(/requires +nothing\n.*echo "ünï"\n$/s)
  expect((await paws(['snapshots'])).stdout).toMatch(/tools +missing/)
  const again = await paws([...create, '--setup', '-'], { stdin: script })
  expect(again).toMatchObject({ code: 1, stderr: expect.stringContaining('There is a config "tools" already') })
  expect((await paws(['snapshots', 'delete', 'tools'])).code).toBe(0)
  expect(await list()).toEqual([])
})

test('login tries the key before it stores both, readable by their owner only', async () => {
  const nothing = { PAWS_URL: '', PAWS_KEY: '' }
  expect((await paws(['whoami'], { env: nothing })).stderr).toContain('run "paws login", or start one with "./paws up"')
  const wrong = await paws(['login', '--url', plane.url], { env: nothing, stdin: 'sk_live_wrong\n' })
  expect(wrong.code).toBe(1)
  const file = join(home, 'config/paws/credentials.json')
  await expect(stat(file)).rejects.toThrow('ENOENT')
  const right = await paws(['login', '--url', plane.url], { env: nothing, stdin: `${plane.key}\n` })
  expect(right).toMatchObject({ code: 0, stderr: '' })
  expect((await stat(file)).mode & 0o777).toBe(0o600)
  expect((await paws(['whoami'], { env: nothing })).stdout).toContain(plane.orgId)
  // The stored key is for the stored server and is sent to no other.
  const other = await paws(['whoami'], { env: { PAWS_URL: 'http://127.0.0.1:2', PAWS_KEY: '' } })
  expect(other.stderr).toContain('There is no API key for http://127.0.0.1:2.')
  await paws(['logout'], { env: nothing })
  expect((await paws(['whoami'], { env: nothing })).code).toBe(1)
})
