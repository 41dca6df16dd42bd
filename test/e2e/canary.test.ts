import { execFile } from 'node:child_process'
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import type { Report } from '../../packages/cli/src/audit/audit.ts'
import { allForms, textForms } from '../../packages/cli/src/audit/forms.ts'
import { createTestAuthority } from '../fakes/certificates.ts'
import { openUpstream, type Upstream } from '../fakes/upstream.ts'
import { callApi } from '../support/control-plane.ts'
import { startInstallation } from '../support/up.ts'

const root = join(import.meta.dirname, '../..')
const host = 'vault.example.test'
/** The snapshot's packages come over the network. */
const slowMs = 15 * 60_000

let folder: string
let upstream: Upstream
let paws: Awaited<ReturnType<typeof startInstallation>>

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'paws-canary-'))
  const temporary = join(folder, 'tmp')
  await mkdir(temporary, { mode: 0o1777 })
  upstream = await openUpstream()
  const authority = await createTestAuthority()
  upstream.certify(host, await authority.issue([host]))
  // What it is sent it says back, in its headers too.
  upstream.answer('/paws-audit', (seen, response) => {
    for (const name of ['x-paws-audit', 'authorization', 'x-stand-in']) {
      response.setHeader(`x-echo-${name}`, String(seen.headers[name] ?? 'none'))
    }
    response.end(JSON.stringify({ ...seen, again: Buffer.from(JSON.stringify(seen.headers)).toString('base64') }))
  })
  const extraCa = join(folder, 'extra-ca.pem')
  await writeFile(extraCa, authority.certificate)
  paws = await startInstallation({
    env: {
      TMPDIR: temporary,
      PAWS_EGRESS_RESOLVE: `${host}:443=127.0.0.1:${upstream.port},${host}:80=127.0.0.1:${upstream.plainPort}`,
      PAWS_EGRESS_EXTRA_CA: extraCa,
      PAWS_DELIVERY_ALLOW: '127.0.0.0/8',
    },
  })
}, slowMs)

afterAll(async () => {
  await paws?.close()
  await upstream?.close()
  await rm(folder, { recursive: true, force: true })
})

/** The command as a user runs it. */
function audit(values: string[]): Promise<{ code: number; report: Report; stderr: string }> {
  const args = ['audit', 'secrets', '--json', '--host', host, '--value-file', '-']
  const env = { PATH: process.env.PATH, HOME: folder, PAWS_DATA: paws.dataDir, TMPDIR: join(folder, 'tmp') }
  return new Promise((resolve) => {
    const child = execFile('./paws', args, { cwd: root, env, maxBuffer: 1e8 }, (error, stdout, stderr) => {
      const code = typeof error?.code === 'number' ? error.code : error ? -1 : 0
      resolve({ code, stderr, report: JSON.parse(stdout || '{}') as Report })
    })
    child.stdin?.end(values.join('\n'))
  })
}

const lying = 'a-value-that-lies-about'
let outcome: Awaited<ReturnType<typeof audit>>

test('each marker is found in its place, in every form', async () => {
  const body = {
    snapshot: 'minimal',
    workload: { type: 'script', script: `echo ${Buffer.from(lying).toString('hex')}` },
    metadata: { lying },
  }
  await callApi(`${paws.url}/v1/sessions`, 'POST', { key: paws.apiKey, body })
  outcome = await audit(['nowhere-to-be-found', lying])

  const { report, stderr } = outcome
  expect(
    Object.fromEntries(report.places?.map(({ place, marker }) => [place, marker?.toSorted()]) ?? []),
    stderr,
  ).toEqual({
    environment: textForms.toSorted(),
    proc: textForms.toSorted(),
    files: allForms.toSorted(),
    snapshots: allForms.toSorted(),
    blobs: allForms.toSorted(),
    database: allForms.toSorted(),
    logs: textForms.toSorted(),
    api: textForms.toSorted(),
    callbacks: textForms.toSorted(),
  })
  expect(report.notes).toEqual([])
}, 600_000)

test('no secret is found anywhere, though all of them were used', () => {
  const leaks = outcome.report.places.flatMap(({ leaks }) => leaks)
  expect(leaks.filter(({ name }) => name !== 'your value 2')).toEqual([])

  const secure = upstream.requests.filter(({ secure }) => secure)
  const secrets = new Set(secure.map(({ headers }) => headers['x-paws-audit']))
  expect([...secrets]).toEqual([expect.stringMatching(/^paws-canary\//)])
  const git = secure.find(({ target }) => target.includes('info/refs'))
  expect(atob(git?.headers.authorization?.slice('Basic '.length) ?? '')).toMatch(/^x-access-token:paws-canary\//)
  const standIns = secure.filter(({ headers }) => headers['x-stand-in'])
  expect(standIns.map(({ target, headers }) => [target, headers['x-stand-in']])).toEqual([
    [expect.stringMatching(/^\/paws-audit\/paws-canary.*value=paws-canary/), expect.stringMatching(/^paws-canary/)],
  ])
  expect(secure.find(({ method }) => method === 'POST')?.body).toMatch(/^\{"value":"paws-canary/)
  expect(secure.filter(({ headers }) => headers.authorization === 'Bearer mine')).toEqual([])
  expect(outcome.report.sent).toBe(secure.length)

  const plain = upstream.requests.filter(({ secure }) => !secure)
  expect(plain).toHaveLength(1)
  expect(JSON.stringify(plain)).not.toContain('paws-canary')
})

test('what lies about is found and fails the audit, which never shows it', () => {
  const { code, report, stderr } = outcome
  const leaks = report.places.flatMap(({ place, leaks }) => leaks.map((leak) => ({ place, ...leak })))
  expect(new Set(leaks.map(({ place }) => place))).toEqual(new Set(['files', 'database', 'api']))
  const where = expect.stringMatching(/^public\.sessions\.script, row /)
  expect(leaks).toContainEqual({ place: 'database', name: 'your value 2', form: 'hex', where })
  expect(code).toBe(1)
  expect(stderr).toContain('Secrets were found in: files, database, api.')
  expect(`${stderr}${JSON.stringify(report)}`).not.toContain(lying)
})

test('what the audit made is removed', async () => {
  const list = async (path: string) =>
    JSON.stringify((await callApi(`${paws.url}${path}`, 'GET', { key: paws.apiKey })).body)
  for (const path of ['/v1/secrets', '/v1/snapshot-configs']) expect(await list(path)).not.toContain('paws-audit')
})
