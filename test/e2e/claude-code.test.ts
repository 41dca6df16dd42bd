import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest'
import { createTestAuthority } from '../fakes/certificates.ts'
import { type FakeMessages, startFakeMessages } from '../fakes/messages.ts'
import { startTestControlPlane, type TestControlPlane } from '../support/control-plane.ts'
import { collect, sessionsOf } from '../support/sessions.ts'
import { provideTemplate, startTestWorker, type TestWorker } from '../support/worker.ts'

/** The real client, in a snapshot of our own, against a stand-in for the API that lets nobody in but with this key. */
const apiKey = 'sk-ant-api03-the-real-key-of-this-test_0123456789-abcdefghijklmnop'
const host = 'api.anthropic.com'
/** The snapshot is built once a machine; its packages come over the network. */
const slowMs = 20 * 60_000

let folder: string
let messages: FakeMessages
let plane: TestControlPlane
let worker: TestWorker
let sessions: ReturnType<typeof sessionsOf>

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'paws-claude-'))
  const authority = await createTestAuthority()
  const extraCa = join(folder, 'extra-ca.pem')
  await writeFile(extraCa, authority.certificate)
  messages = await startFakeMessages({
    certificate: await authority.issue([host]),
    apiKey,
    // What only the sandbox has, so that it can have run nowhere else.
    command: 'echo "session $PAWS_SESSION_ID" | tee /workspace/proof',
    answer: 'The command said: ',
  })
  plane = await startTestControlPlane()
  const env = { PAWS_EGRESS_RESOLVE: `${host}:443=127.0.0.1:${messages.port}`, PAWS_EGRESS_EXTRA_CA: extraCa }
  worker = await startTestWorker(plane, { env })
  await provideTemplate(plane, worker, 'claude-code')
  sessions = sessionsOf(plane)
}, slowMs)

afterAll(async () => {
  await worker?.close()
  await plane?.close()
  await messages?.close()
  await rm(folder, { recursive: true, force: true })
})

beforeEach(() => {
  messages.requests.length = 0
})

interface Line {
  type: string
  subtype?: string
  result?: string
  is_error?: boolean
  num_turns?: number
}

/** Lets it do its work, and gives the lines of its output. */
async function runClaude(env: Record<string, string>, credential: object) {
  const script = `claude -p 'Run the command and tell me what it says.' --output-format stream-json --verbose \
    --max-turns 3 --allowedTools Bash
status=$?
echo "proof: $(cat /workspace/proof)" >&2
env >&2
exit $status`
  const network = { credentials: { [host]: credential }, auditLog: true }
  const sessionId = await sessions.start(script, { snapshot: 'claude-code', env, network })
  const session = await sessions.ended(sessionId, 120_000)
  const lines = (session.stdout ?? '').trim().split('\n')
  const said = lines.map((line) => (line.startsWith('{') ? (JSON.parse(line) as Line) : undefined))
  return { sessionId, session, result: said.findLast((line) => line?.type === 'result') }
}

/** That it worked, in there, and that the key went out with each request and came to light nowhere. */
async function expectProof({ sessionId, session, result }: Awaited<ReturnType<typeof runClaude>>) {
  expect(result, `${session.stdout}\n${session.stderr}`).toMatchObject({
    subtype: 'success',
    is_error: false,
    num_turns: 2,
    result: `The command said: session ${sessionId}`,
  })
  expect(session).toMatchObject({ status: 'completed', exitCode: 0 })
  expect(session.stderr).toContain(`proof: session ${sessionId}\n`)

  const turns = messages.requests.filter(({ path, status }) => path.startsWith('/v1/messages') && status === 200)
  expect(turns.length).toBeGreaterThanOrEqual(2)
  for (const { headers, path } of messages.requests) {
    expect(
      headers.filter(([name, value]) => /auth|key|cookie/.test(name) || value.includes('dummy')),
      path,
    ).toEqual([['x-api-key', apiKey]])
  }

  const answers = [
    `/v1/sessions/${sessionId}`,
    `/v1/sessions/${sessionId}/logs`,
    `/v1/sessions/${sessionId}/logs?stream=stderr`,
    `/v1/sessions/${sessionId}/egress`,
    '/v1/sessions',
  ].map(async (path) => JSON.stringify((await plane.call('GET', path)).body))
  const events = await collect(sessions.events('GET', `/v1/sessions/${sessionId}/events`))
  for (const text of [...(await Promise.all(answers)), JSON.stringify(events)]) {
    expect(text.length).toBeGreaterThan(100)
    expect(text).not.toContain(apiKey)
  }
  const { requests } = (await plane.call<{ requests: object[] }>('GET', `/v1/sessions/${sessionId}/egress`)).body
  expect(requests).toContainEqual(
    expect.objectContaining({ host, method: 'POST', path: '/v1/messages', status: 200, credential: true }),
  )
}

test('it works with a key of no worth, and the real one is added on the way', async () => {
  const credential = { headers: { 'x-api-key': apiKey } }
  await expectProof(await runClaude({ ANTHROPIC_API_KEY: 'sk-ant-dummy' }, credential))
}, 150_000)

test('the other kind of credential that it has is taken away', async () => {
  const credential = { headers: { 'x-api-key': apiKey } }
  await expectProof(await runClaude({ ANTHROPIC_AUTH_TOKEN: 'dummy-token' }, credential))
}, 150_000)

test('it works with a placeholder, which becomes the key on the way', async () => {
  const run = await runClaude({}, { placeholders: { ANTHROPIC_API_KEY: apiKey } })
  await expectProof(run)
  // It had something there, which was not the key.
  expect(run.session.stderr).toMatch(/^ANTHROPIC_API_KEY=.{24,}$/m)
  expect(run.session.stderr).not.toContain(apiKey)
}, 150_000)

test('a stored key does as well, and the snapshot brings what Claude Code wants to see of one', async () => {
  await plane.call('PUT', '/v1/secrets/ANTHROPIC', { body: { value: apiKey } })
  const credential = { headers: { 'x-api-key': { secret: 'ANTHROPIC' } } }
  await expectProof(await runClaude({}, credential))
}, 150_000)

test('without a credential the API lets it in no further', async () => {
  const network = { allowOut: [host] }
  const script = 'claude -p hello --max-turns 1'
  const env = { ANTHROPIC_API_KEY: 'sk-ant-dummy', CLAUDE_CODE_MAX_RETRIES: '0' }
  const { status, stdout } = await sessions.ended(
    await sessions.start(script, { snapshot: 'claude-code', env, network }),
    120_000,
  )
  expect(status).toBe('failed')
  expect(stdout).toMatch(/invalid|API key/i)
  expect(messages.requests.map(({ status }) => status)).toContain(401)
}, 150_000)
