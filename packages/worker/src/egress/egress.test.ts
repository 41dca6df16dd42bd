import { once } from 'node:events'
import { readFile } from 'node:fs/promises'
import { createServer, type Server } from 'node:https'
import type { AddressInfo } from 'node:net'
import { createInterface } from 'node:readline'
import type { EgressRecord } from '@paws/api'
import { pino } from 'pino'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { type DriverUnderTest, drivers } from '../../../../test/conformance/drivers.ts'
import { openSuite } from '../../../../test/conformance/suite.ts'
import { createTestAuthority } from '../../../../test/fakes/certificates.ts'
import type { Sandbox } from '../sandbox/driver.ts'
import { furnish } from '../sandbox/furnish.ts'
import { slotHelperBinary } from '../sandbox/testing/build-program.ts'
import { type Egress, openEgress } from './index.ts'

const key = 'k-8c1f0b7e5a6d4c3f9e2b1a0d'
const log = pino({ level: 'silent' })
let upstream: Server
/** The key that each request brought, by its path */
const seen: { path: string; key: unknown }[] = []
let egress: Egress

beforeAll(async () => {
  const authority = await createTestAuthority()
  const names = ['api.test', 'a.wild.test', 'b.wild.test']
  upstream = createServer(await authority.issue(names), (request, response) => {
    seen.push({ path: request.url ?? '', key: request.headers['x-api-key'] })
    response.write('begun\n')
    if (request.url !== '/slow') response.end('ended\n')
  })
  await once(upstream.listen(0, '127.0.0.1'), 'listening')
  const to = `127.0.0.1:${(upstream.address() as AddressInfo).port}`
  egress = await openEgress({
    slotHelper: await slotHelperBinary(),
    resolve: names.map((name) => [`${name}:443`, to]),
    extraCa: [authority.certificate],
    log,
  })
})

afterAll(async () => {
  await egress.close()
  upstream.closeAllConnections()
  upstream.close()
})

// After the above, so that its driver gets this egress.
const underTest = drivers.process as DriverUnderTest
const suite = openSuite({ ...underTest, open: (options) => underTest.open({ ...options, outlets: egress }) })

const PROGRAM = `
import http.client, json, socket, ssl, sys, time
context = ssl.create_default_context()
def say(**what): print(json.dumps(what), flush=True)
def hear(): return sys.stdin.readline().strip()
def get(host, path="/", address=None):
  raw = socket.create_connection((address or host, 443), 5)
  c = http.client.HTTPSConnection(host)
  c.sock = context.wrap_socket(raw, server_hostname=host)
  c.request("GET", path)
  return c.getresponse()
def until_works(host, address=None):
  end = time.time() + 20
  while True:
    try: return get(host, "/again", address).read().decode()
    except OSError as e:
      if time.time() > end: raise
      time.sleep(0.02)
`

/** Runs a program inside that prints lines of JSON and waits for lines of ours. */
async function converse(sandbox: Sandbox, source: string) {
  const records: EgressRecord[] = []
  const inlay = await sandbox.outlet.allow(
    {
      allowOut: ['*.wild.test'],
      credentials: { 'api.test': { headers: { 'X-Api-Key': key }, placeholders: {} } },
      auditLog: true,
    },
    async (more) => void records.push(...more),
  )
  const { env, placed } = furnish(sandbox, inlay, log)
  await placed
  const program = sandbox.exec({ argv: ['python3', '-c', PROGRAM + source], env, cwd: '/', stdin: true })
  let said = ''
  program.stderr.on('data', (text) => {
    said += text
  })
  const lines = createInterface({ input: program.stdout })[Symbol.asyncIterator]()
  return {
    records,
    go: () => program.stdin.write('\n'),
    async hear() {
      const { value } = await lines.next()
      if (value === undefined) throw new Error(`The program inside ended: ${said}`)
      return JSON.parse(value) as Record<string, unknown>
    },
  }
}

function kill() {
  const { pid } = egress
  process.kill(pid as number, 'SIGKILL')
  return pid
}

test('when the egress process is killed, open requests break and the next ones work, at the addresses known', async () => {
  const sandbox = await suite.start()
  const { hear, go, records } = await converse(
    sandbox,
    `
find = lambda: {n: socket.gethostbyname(n) for n in ["b.wild.test", "a.wild.test", "api.test"]}
slow = get("api.test", "/slow")
before = find()
say(begun=slow.readline().decode())
hear()
try: slow.read(); broke = None
except (OSError, http.client.HTTPException) as e: broke = type(e).__name__
say(broke=broke, wild=until_works("a.wild.test", before["a.wild.test"]), api=until_works("api.test"), same=find() == before)`,
  )
  expect(await hear()).toEqual({ begun: 'begun\n' })
  const killed = kill()
  go()
  const { broke, ...rest } = await hear()
  expect(broke).toMatch(/ConnectionResetError|IncompleteRead|SSLEOFError/)
  expect(rest).toEqual({ wild: 'begun\nended\n', api: 'begun\nended\n', same: true })
  expect(egress.pid).not.toBe(killed)
  expect(seen).toContainEqual({ path: '/again', key })
  await expect.poll(() => records).toContainEqual(expect.objectContaining({ path: '/again', host: 'api.test' }))
})

test('while there is no egress process, whatever is dialled is refused', async () => {
  const sandbox = await suite.start()
  const { hear, go } = await converse(
    sandbox,
    `
address = socket.gethostbyname("api.test")
say(ready=True)
hear()
def dial(port):
  s = socket.socket(); s.settimeout(5)
  try: s.connect((address, port)); return "taken"
  except (ConnectionRefusedError, ConnectionResetError): return "refused"
  except OSError as e: return type(e).__name__
  finally: s.close()
seen, last, end = set(), "", time.time() + 20
while time.time() < end and not ("refused" in seen and last == "taken"):
  last = dial(443); seen.add(last); seen.add(dial(80))
say(seen=sorted(seen), works=until_works("api.test"))`,
  )
  await hear()
  kill()
  go()
  expect(await hear()).toEqual({ seen: ['refused', 'taken'], works: 'begun\nended\n' })
})

test('a slot that was ready when the process was killed serves, and one that is being made', async () => {
  kill()
  const sandboxes = await Promise.all([suite.start(), suite.start(), suite.start()])
  for (const sandbox of sandboxes) {
    const { hear } = await converse(sandbox, 'say(works=until_works("api.test"))')
    expect(await hear()).toEqual({ works: 'begun\nended\n' })
  }
})

test('the egress process has no privileges, no environment and no way to others', async () => {
  const read = (name: string) => readFile(`/proc/${egress.pid}/${name}`, 'utf8')
  const status = await read('status')
  const field = (name: string) => new RegExp(`^${name}:\\s*(\\S+)$`, 'm').exec(status)?.[1]
  const none = '0000000000000000'
  expect(['CapEff', 'CapPrm', 'CapInh', 'NoNewPrivs'].map(field)).toEqual([none, none, none, '1'])
  if (process.getuid?.() === 0) expect(field('CapBnd')).toBe(none)
  const names = (await read('environ')).split('\0').map((line) => line.split('=')[0])
  expect(names.filter((name) => name && !name.startsWith('NODE_CHANNEL'))).toEqual(['PATH', 'UV_THREADPOOL_SIZE'])
  expect(await read('cmdline')).toContain('--permission')
  expect(await read('cmdline')).not.toContain(key)
})
