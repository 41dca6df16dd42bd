import { execFile } from 'node:child_process'
import { createHash } from 'node:crypto'
import { chmod, mkdtemp, readFile, rm, stat } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { cleanClone, controlGroups, failingUp, footprintOf, remains, startUp, type Up } from '../support/up.ts'

const run = promisify(execFile)
/** npm ci and a snapshot's packages come over the network. */
const slowMs = 15 * 60_000

let folder: string
let clone: string
let dataDir: string
let up: Up

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'paws-quickstart-'))
  // The database's own user must get through.
  await chmod(folder, 0o711)
  dataDir = join(folder, 'data')
  clone = await cleanClone(folder)
  up = await startUp({ clone, dataDir })
}, slowMs)

afterAll(async () => {
  await up?.interrupt()
  await rm(folder, { recursive: true, force: true })
})

/** Runs a line of the quick start as it is written there. */
async function shell<T>(script: string, env: Record<string, string> = {}): Promise<T> {
  const { stdout } = await run('bash', ['-euc', script], {
    env: { PATH: process.env.PATH, PAWS_URL: up.url, PAWS_KEY: up.apiKey, ...env },
  })
  return JSON.parse(stdout) as T
}

const createSession = `curl -s -X POST "$PAWS_URL/v1/sessions" -H "Authorization: Bearer $PAWS_KEY" -H "Content-Type: application/json" -d '{
  "snapshot": "minimal",
  "workload": { "type": "script", "script": "echo hello from inside the VM && uname -a" },
  "timeoutMs": 60000 }'`
const getSession = `curl -s "$PAWS_URL/v1/sessions/$SESSION_ID" -H "Authorization: Bearer $PAWS_KEY"`
const getFleet = `curl -s "$PAWS_URL/v1/fleet" -H "Authorization: Bearer $PAWS_KEY"`

async function runSession({ patienceMs = 60_000 } = {}) {
  const accepted = await shell<{ sessionId: string; status: string }>(createSession)
  const get = () => shell<Record<string, unknown>>(getSession, { SESSION_ID: accepted.sessionId })
  await expect.poll(async () => (await get()).completedAt, { timeout: patienceMs, interval: 200 }).toBeDefined()
  return { accepted, session: await get() }
}

describe('a clean clone, started by ./paws up', () => {
  test('stdout is one line with URL and key, stderr names each step and its time', async () => {
    expect(up.stdout()).toBe(`${JSON.stringify({ url: up.url, apiKey: up.apiKey })}\n`)
    for (const step of ['npm packages', 'guest-agent', 'PostgreSQL', 'Control plane', 'Worker', 'First session']) {
      expect(up.stderr()).toMatch(new RegExp(`^✓ .*${step}.* \\d+\\.\\d s$`, 'm'))
    }
    expect((await stat(join(dataDir, 'credentials.json'))).mode & 0o777).toBe(0o600)
  })

  test('a session and the fleet, by the commands of the quick start', async () => {
    const { accepted, session } = await runSession()
    expect(accepted).toEqual({ sessionId: expect.stringMatching(/^[0-9a-f-]{36}$/), status: 'pending' })
    expect(session).toMatchObject({
      sessionId: accepted.sessionId,
      status: 'completed',
      exitCode: 0,
      stdout: expect.stringMatching(/^hello from inside the VM\nLinux .*\n$/),
      durationMs: expect.any(Number),
      worker: expect.stringMatching(/^[a-z0-9][a-z0-9-]*$/),
      isolation: 'process',
    })
    expect(await shell(getFleet)).toEqual({
      totalWorkers: 1,
      healthyWorkers: 1,
      totalCapacity: expect.any(Number),
      usedCapacity: 0,
      queuedSessions: 0,
      activeDaemons: 0,
      activeSessions: 0,
    })
  })

  test('the command line on this machine finds URL and key by itself', async () => {
    const env = { PATH: process.env.PATH, HOME: folder, PAWS_DATA: dataDir }
    const { stdout } = await run('./paws', ['run', 'echo hello'], { cwd: clone, env })
    expect(stdout).toBe('hello\n')
  })

  test('a second up on the same folder is told of the first', async () => {
    const { code, stdout, stderr } = await failingUp({ clone, dataDir })
    expect({ code, stdout }).toEqual({ code: 1, stdout: '' })
    expect(stderr).toContain(`paws already runs on ${dataDir} (pid ${up.pid}, ${up.url})`)
  })

  test('whichever process is killed comes back, and sessions run again', async () => {
    const { children } = JSON.parse(await readFile(join(dataDir, 'up.json'), 'utf8')) as {
      children: { name: string; pid: number }[]
    }
    expect(children.map(({ name }) => name)).toEqual(['PostgreSQL', 'Control plane', 'Worker'])
    let killed = 0
    for (const { name, pid } of children) {
      process.kill(pid, 'SIGKILL')
      await expect.poll(up.stderr, { timeout: 10_000 }).toContain(`! ${name} has ended unasked`)
      // One that was being handed out just then ends with its lease only, so that others are tried.
      const works = () => runSession({ patienceMs: 5000 }).then(({ session }) => session.status, String)
      await expect.poll(works, { timeout: 60_000, interval: 200 }).toBe('completed')
      // None takes another down with it.
      expect(up.stderr().match(/has ended unasked/g)).toHaveLength(++killed)
    }
  }, 240_000)

  test('Ctrl-C stops all and leaves nothing; the next start takes seconds and has the same key', async () => {
    const footprint = await footprintOf(up.pid)
    expect(footprint.processes.size).toBeGreaterThan(5)
    expect(footprint.namespaces.size).toBeGreaterThan(0)
    const instance = createHash('sha256').update(join(dataDir, 'worker')).digest('hex').slice(0, 8)
    // Only root, or whom a part of them was delegated to, has any.
    if (process.getuid?.() === 0) expect(await controlGroups(`paws-${instance}-`)).not.toEqual([])
    expect(await up.interrupt()).toBe(0)
    expect(await remains(footprint, dataDir)).toEqual([])
    expect(await controlGroups(`paws-${instance}-`)).toEqual([])

    const { apiKey } = up
    up = await startUp({ clone, dataDir })
    expect(up.apiKey).toBe(apiKey)
    expect(up.readyMs).toBeLessThan(20_000)
    expect(up.stderr()).not.toContain('npm packages')
    expect(up.stderr()).not.toContain('Snapshot')
  }, 120_000)

  test('kill -9 of up itself ends what it started, and the next one starts', async () => {
    const footprint = await footprintOf(up.pid)
    expect(await up.kill()).toBe('SIGKILL')
    await expect.poll(() => remains(footprint, dataDir), { timeout: 30_000 }).toEqual([])
    up = await startUp({ clone, dataDir })
    expect((await runSession()).session.status).toBe('completed')
  }, 120_000)
})
