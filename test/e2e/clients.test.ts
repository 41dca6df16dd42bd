import { createHash } from 'node:crypto'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { createTestAuthority } from '../fakes/certificates.ts'
import { type FakeGitHub, startFakeGitHub } from '../fakes/git.ts'
import { type FakeIndex, startFakeIndex } from '../fakes/pypi.ts'
import { openUpstream, type Upstream } from '../fakes/upstream.ts'
import { startTestControlPlane, type TestControlPlane } from '../support/control-plane.ts'
import { sessionsOf } from '../support/sessions.ts'
import { provideMinimal, provideTemplate, startTestWorker, type TestWorker } from '../support/worker.ts'

/** Programs that people use, as they are: none of them is told of the proxy. */
const host = 'service.example.test'
const index = 'index.example.test'
const token = 'ghp_the-token-of-this-test-0123456789'
const key = 'key-of-this-test-0123456789abcdef'
/** Snapshots are built once a machine; their packages come over the network. */
const slowMs = 20 * 60_000

let folder: string
let upstream: Upstream
let gitHub: FakeGitHub
let pypi: FakeIndex
let plane: TestControlPlane
let worker: TestWorker
let sessions: ReturnType<typeof sessionsOf>

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'paws-clients-'))
  const authority = await createTestAuthority()
  const extraCa = join(folder, 'extra-ca.pem')
  await writeFile(extraCa, authority.certificate)
  upstream = await openUpstream()
  upstream.certify(host, await authority.issue([host]))
  const certificate = await authority.issue(['github.com'])
  gitHub = await startFakeGitHub({ certificate, token, repositories: ['acme/tools'] })
  const source = 'greeting = "hello from a wheel"\n'
  pypi = await startFakeIndex({ certificate: await authority.issue([index]), name: 'pawsgreeting', source })
  plane = await startTestControlPlane()
  const resolve = {
    [`${host}:443`]: upstream.port,
    [`${host}:80`]: upstream.plainPort,
    'github.com:443': gitHub.port,
    [`${index}:443`]: pypi.port,
  }
  const env = {
    PAWS_EGRESS_RESOLVE: Object.entries(resolve)
      .map(([from, port]) => `${from}=127.0.0.1:${port}`)
      .join(','),
    PAWS_EGRESS_EXTRA_CA: extraCa,
  }
  worker = await startTestWorker(plane, { env })
  sessions = sessionsOf(plane)
  await provideMinimal(plane, worker)
}, slowMs)

afterAll(async () => {
  await worker?.close()
  await plane?.close()
  await gitHub?.close()
  await upstream?.close()
  pypi?.close()
  await rm(folder, { recursive: true, force: true })
})

beforeEach(() => {
  upstream.forget()
})

/** Runs a script that may reach these hosts, with the key for ours, and gives what it said. */
async function say(script: string, options: { snapshot?: string; allowOut?: string[]; credentials?: object } = {}) {
  const { snapshot = 'minimal', allowOut = [], credentials = { [host]: { headers: { 'x-api-key': key } } } } = options
  const network = { allowOut, credentials }
  const session = await sessions.ended(await sessions.start(script, { snapshot, network }), 120_000)
  expect(session, `${session.stdout}\n${session.stderr}`).toMatchObject({ status: 'completed' })
  return session.stdout ?? ''
}

/** What arrived, with the one key that is right. */
function expectArrival(...targets: string[]) {
  expect(upstream.requests.map(({ target }) => target)).toEqual(targets)
  for (const { rawHeaders } of upstream.requests) {
    expect(rawHeaders.filter((name) => name.toLowerCase() === 'x-api-key')).toHaveLength(1)
    expect(rawHeaders).toContain(key)
  }
}

/** Some start a good many processes, and the machine may have other things to do. */
const timeout = 90_000

describe('on the snapshot minimal', { timeout }, () => {
  test('git clones and pushes over https with a token that it does not have', async () => {
    const credentials = { 'github.com': { headers: { Authorization: `Bearer ${token}` } } }
    const script = `set -e
git clone https://github.com/acme/tools.git
cd tools
head -c 2000000 /dev/urandom > large
echo "by $PAWS_SESSION_ID" > pushed
git add .
git -c user.name=Sandbox -c user.email=sandbox@example.com commit --quiet --message=Second
git push --quiet origin main
git -C . ls-remote https://github.com/acme/tools refs/heads/main | cut -f2
cat README.md`
    expect(await say(script, { credentials })).toBe('refs/heads/main\n# acme/tools\n')
    expect(await gitHub.read('acme/tools', 'pushed')).toMatch(/^by [0-9a-f-]{36}\n$/)
    const expected = `Basic ${Buffer.from(`x-access-token:${token}`).toString('base64')}`
    expect([...new Set(gitHub.authorizations)]).toEqual([expected])
  })

  test('git with no token, or with one for another host, is refused', async () => {
    const script = 'GIT_TERMINAL_PROMPT=0 git ls-remote https://github.com/acme/tools 2>&1 || echo refused'
    expect(await say(script, { allowOut: ['github.com'] })).toMatch(/refused\n$/)
    const credentials = { [host]: { headers: { Authorization: `Bearer ${token}` } } }
    expect(await say(script, { allowOut: ['github.com'], credentials })).toMatch(/refused\n$/)
    expect(gitHub.authorizations.slice(-2)).toEqual([undefined, undefined])
  })

  test('curl, by HTTP/1.1 and HTTP/2', async () => {
    const curl = (version: string) =>
      `curl -sS --${version} -w ' %{http_version}\\n' https://${host}/${version} -H 'x-api-key: mine'`
    expect(await say(`${curl('http1.1')}; ${curl('http2')}`)).toBe(`hello from ${host} 1.1\nhello from ${host} 2\n`)
    expectArrival('/http1.1', '/http2')
  })

  test('curl by plain http, where no key is added', async () => {
    expect(await say(`curl -sS http://${host}/plain`)).toBe(`hello from ${host}`)
    expect(upstream.requests).toHaveLength(1)
    expect(upstream.requests[0]?.rawHeaders).not.toContain(key)
  })

  test('Python’s urllib', async () => {
    const script = `#!/usr/bin/env python3
import urllib.request
print(urllib.request.urlopen("https://${host}/urllib").read().decode())`
    expect(await say(script)).toBe(`hello from ${host}\n`)
    expectArrival('/urllib')
  })

  test('a download and an upload of 20 MB arrive whole', async () => {
    const size = 20 * 1024 * 1024
    upstream.answer('/large', (_seen, response) => response.end(Buffer.alloc(size, 'abcdefgh')))
    upstream.answer('/upload', (seen, response) => response.end(String(seen.body.length)))
    const script = `curl -sS https://${host}/large > large
sha256sum < large
curl -sS --data-binary @large https://${host}/upload`
    const sum = createHash('sha256').update(Buffer.alloc(size, 'abcdefgh')).digest('hex')
    expect(await say(script)).toBe(`${sum}  -\n${size}`)
  })
})

describe('on the snapshot node', { timeout }, () => {
  beforeAll(() => provideTemplate(plane, worker, 'node'), slowMs)

  test('npm installs from where this machine has its packages, by preset:npm', async () => {
    const script = `set -e
npm init --yes >/dev/null
npm install --no-audit --no-fund is-number@7.0.0 >&2
node -p 'require("is-number")(42)'`
    expect(await say(script, { snapshot: 'node', allowOut: ['preset:npm'] })).toBe('true\n')
  })

  test('Node’s fetch, https, http2 and WebSocket', async () => {
    const script = `#!/usr/bin/env node
const { get } = require('node:https')
const { connect } = require('node:http2')
const { text } = require('node:stream/consumers')
const say = (...what) => console.log(...what)

async function main() {
  say('fetch', await (await fetch('https://${host}/fetch')).text())
  say('https', await new Promise((resolve) => get('https://${host}/https', (answer) => resolve(text(answer)))))
  const session = connect('https://${host}')
  say('http2', await text(session.request({ ':path': '/http2' })))
  session.close()
  const socket = new WebSocket('wss://${host}/socket')
  await new Promise((resolve) => socket.addEventListener('open', resolve))
  const echo = new Promise((resolve) => socket.addEventListener('message', ({ data }) => resolve(data)))
  socket.send('there and back')
  say('WebSocket', await echo)
  socket.close()
}
main()`
    expect(await say(script, { snapshot: 'node' })).toBe(
      ['fetch', 'https', 'http2'].map((name) => `${name} hello from ${host}\n`).join('') + 'WebSocket there and back\n',
    )
    expectArrival('/fetch', '/https', '/http2', '/socket')
  })
})

describe('on the snapshot python', { timeout }, () => {
  beforeAll(() => provideTemplate(plane, worker, 'python'), slowMs)

  test('pip installs a wheel, which then works; requests finds the certificates', async () => {
    const script = `set -e
pip install --quiet --disable-pip-version-check --break-system-packages --root-user-action=ignore \
  --index-url https://${index}/simple/ pawsgreeting
python3 -c 'import pawsgreeting; print(pawsgreeting.greeting)'
python3 -c 'from pip._vendor import requests; print(requests.get("https://${host}/requests").text)'`
    expect(await say(script, { snapshot: 'python', allowOut: [index] })).toBe(
      `hello from a wheel\nhello from ${host}\n`,
    )
    expect(pypi.requests).toEqual(['/simple/pawsgreeting/', '/files/pawsgreeting-1.0-py3-none-any.whl'])
    expectArrival('/requests')
  })
})
