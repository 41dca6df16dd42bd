import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { EgressRecord } from '@paws/api'
import { afterAll, afterEach, beforeAll, expect, test, vi } from 'vitest'
import { createTestAuthority } from '../fakes/certificates.ts'
import { openUpstream, type Upstream } from '../fakes/upstream.ts'
import { startTestControlPlane, type TestControlPlane } from '../support/control-plane.ts'
import { sessionsOf } from '../support/sessions.ts'
import { provideMinimal, startTestWorker, type TestWorker } from '../support/worker.ts'

const host = 'api.example.test'
let folder: string
let upstream: Upstream
let plane: TestControlPlane
let worker: TestWorker
let sessions: ReturnType<typeof sessionsOf>

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'paws-network-'))
  const authority = await createTestAuthority()
  const extraCa = join(folder, 'ca.pem')
  await writeFile(extraCa, authority.certificate)
  upstream = await openUpstream()
  upstream.certify(host, await authority.issue([host]))
  plane = await startTestControlPlane()
  const env = { PAWS_EGRESS_RESOLVE: `${host}:443=127.0.0.1:${upstream.port}`, PAWS_EGRESS_EXTRA_CA: extraCa }
  worker = await startTestWorker(plane, { env })
  sessions = sessionsOf(plane)
  await provideMinimal(plane, worker)
}, 600_000)

afterAll(async () => {
  await worker?.close()
  await plane?.close()
  await upstream?.close()
  await rm(folder, { recursive: true })
})

afterEach(() => {
  vi.unstubAllEnvs()
})

async function recordsOf(sessionId: string): Promise<EgressRecord[]> {
  const { body } = await plane.call<{ requests: EgressRecord[] }>('GET', `/v1/sessions/${sessionId}/egress`)
  return body.requests
}

test("what programs need for the way out is there, and the session's own variables win over it", async () => {
  const script = `
    echo "$CURL_CA_BUNDLE $GIT_SSL_CAINFO $NODE_EXTRA_CA_CERTS $SSL_CERT_FILE"
    for file in /etc/ssl/certs/ca-certificates.crt /usr/local/share/ca-certificates/paws.crt; do cmp $file /run/paws/ca.crt && grep -c BEGIN $file; done
    echo "$TOKEN"`
  const credentials = { [host]: { placeholders: { TOKEN: 'a value that stays outside' } } }
  const env = { SSL_CERT_FILE: '/own' }
  const { stdout } = await sessions.ended(await sessions.start(script, { env, network: { credentials } }))
  const ca = '/run/paws/ca.crt'
  expect(stdout?.split('\n')).toEqual([`${ca} ${ca} ${ca} /own`, '1', '1', expect.stringMatching(/^[0-9a-f]{26}$/), ''])
})

test('a session has its network from its first command on, and its records are whole when it has ended', async () => {
  let arrived = false
  upstream.answer('/slow', () => {
    arrived = true
  })
  const script = `curl --silent --max-time 60 https://${host}/slow & curl --silent https://other.example.test/; sleep 1`
  const sessionId = await sessions.start(script, { network: { allowOut: [host], auditLog: true } })
  expect(await sessions.ended(sessionId)).toMatchObject({ status: 'completed' })
  expect(arrived).toBe(true)
  expect((await recordsOf(sessionId)).reverse()).toEqual([
    expect.objectContaining({ decision: 'refused', reason: 'name-not-allowed', host: 'other.example.test', port: 53 }),
    // The session's end broke it off.
    expect.objectContaining({ decision: 'allowed', host, path: '/slow', port: 443 }),
  ])
})

test('a session that names a preset which this machine has not fails, and says what to do', async () => {
  vi.stubEnv('npm_config_registry', 'http://registry.example.test:4873/')
  const sessionId = await sessions.start('true', { network: { allowOut: ['preset:npm'] } })
  const { status, error } = await sessions.ended(sessionId, 60_000)
  expect({ status, error }).toEqual({
    status: 'failed',
    error: {
      code: 'PRESET_UNAVAILABLE',
      message:
        'preset:npm (the registry that npm is set to) stands for nothing here: ' +
        'its address has the port 4873, and only 80 and 443 lead out of a sandbox',
    },
  })
})
