import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, readdir, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { startTestControlPlane, type TestControlPlane } from '../support/control-plane.ts'
import { type TestDatabase, testDatabase } from '../support/database.ts'
import { pidsWith } from '../support/processes.ts'
import { sessionsOf } from '../support/sessions.ts'
import { provideMinimal, startTestWorker, workerEnvironment } from '../support/worker.ts'

/** Ends the seconds that programs of this run sleep, so that another run's are not taken for them. */
const own = process.pid

const main = fileURLToPath(new URL('../../packages/worker/src/main.ts', import.meta.url))
const leaseMs = 6_000
let database: TestDatabase
let dataFolder: string
let workerDir: string
let plane: TestControlPlane
let sessions: ReturnType<typeof sessionsOf>
let port = '0'
const children: ChildProcess[] = []

async function startPlane() {
  const env = { PAWS_LEASE_MS: String(leaseMs), PAWS_UNSAFE_SHORT_LEASES: '1', PORT: port }
  plane = await startTestControlPlane({ database, dataFolder, env, logLevel: process.env.TEST_LOG })
  port = new URL(plane.url).port
  sessions = sessionsOf(plane)
}

async function startProcess(env: Record<string, string> = {}): Promise<ChildProcess> {
  const settings = await workerEnvironment(plane, { dataDir: workerDir, env: { PAWS_LOG_LEVEL: 'info', ...env } })
  const child = spawn(process.execPath, [main], { env: settings, stdio: ['ignore', 'pipe', 'inherit'] })
  children.push(child)
  const { promise: ready, resolve } = Promise.withResolvers<void>()
  child.stdout.on('data', (bytes) => {
    if (process.env.TEST_LOG) process.stderr.write(bytes)
    if (String(bytes).includes('The worker is ready')) resolve()
  })
  await Promise.race([
    ready,
    once(child, 'exit').then(() => Promise.reject(new Error('The worker ended while it started'))),
  ])
  return child
}

async function stopped(child: ChildProcess, signal: NodeJS.Signals): Promise<number | null> {
  const exited = once(child, 'exit')
  child.kill(signal)
  return (await exited)[0] as number | null
}

beforeAll(async () => {
  database = await testDatabase()
  dataFolder = await mkdtemp(join(tmpdir(), 'paws-plane-'))
  workerDir = await mkdtemp(join(tmpdir(), 'paws-worker-'))
  await startPlane()
  const first = await startTestWorker(plane, { dataDir: workerDir })
  await provideMinimal(plane, first)
  // Fetches the snapshot, so that no test below waits for it.
  await sessions.ended(await sessions.start('true'))
  await first.close()
}, 600_000)

afterAll(async () => {
  for (const child of children) {
    if (child.exitCode === null && child.signalCode === null) await stopped(child, 'SIGKILL')
  }
  await plane?.close()
  await database?.close()
  for (const folder of [dataFolder, workerDir]) await rm(folder, { recursive: true, force: true })
})

test('a worker that is killed leaves no process, and its next run reports what it had, once', async () => {
  const child = await startProcess()
  const sessionId = await sessions.start(`echo before; sleep 22360679${own}`)
  await sessions.saying(sessionId, 'before')
  await stopped(child, 'SIGKILL')
  await expect.poll(() => pidsWith(`22360679${own}`)).toEqual([])
  const next = await startProcess()
  expect(await sessions.ended(sessionId)).toMatchObject({
    status: 'failed',
    stdout: 'before\n',
    error: { code: 'WORKER_RESTARTED' },
  })
  expect((await sessions.ended(await sessions.start('echo again'))).stdout).toBe('again\n')
  await expect.poll(() => readdir(join(workerDir, 'journal'))).toEqual([])
  expect(await stopped(next, 'SIGTERM')).toBe(0)
})

test('SIGTERM lets what runs end by itself and takes nothing new', async () => {
  const child = await startProcess()
  const sessionId = await sessions.start('echo on; sleep 2; echo done')
  await sessions.saying(sessionId, 'on')
  const exited = stopped(child, 'SIGTERM')
  // A signal takes its time on a busy machine, and what the worker had asked for before is still its own.
  await sleep(500)
  const late = await sessions.start('true')
  expect(await exited).toBe(0)
  expect(await sessions.get(sessionId)).toMatchObject({ status: 'completed', stdout: 'on\ndone\n' })
  expect((await sessions.get(late)).status).toBe('pending')
  await plane.call('DELETE', `/v1/sessions/${late}`)
})

test('a second SIGTERM ends what runs, says so, and leaves nothing', async () => {
  const child = await startProcess()
  const sessionId = await sessions.start(`echo on; sleep 26457513${own}`)
  await sessions.saying(sessionId, 'on')
  child.kill('SIGTERM')
  await new Promise((resolve) => setTimeout(resolve, 300))
  expect((await sessions.get(sessionId)).status).toBe('running')
  expect(await stopped(child, 'SIGTERM')).toBe(0)
  expect(pidsWith(`26457513${own}`)).toEqual([])
  expect(await sessions.get(sessionId)).toMatchObject({ status: 'failed', error: { code: 'WORKER_STOPPED' } })
})

test('a control plane that is away for half a lease costs a running session nothing', async () => {
  const child = await startProcess()
  const sessionId = await sessions.start('for i in 1 2 3 4 5 6 7 8; do echo $i; sleep 0.4; done')
  await sessions.saying(sessionId, '1')
  await plane.close()
  await new Promise((resolve) => setTimeout(resolve, leaseMs / 3))
  await startPlane()
  const ended = await sessions.ended(sessionId)
  expect(ended).toMatchObject({ status: 'completed', stdout: '1\n2\n3\n4\n5\n6\n7\n8\n' })
  expect(await stopped(child, 'SIGTERM')).toBe(0)
})

test('out of contact, a worker stops its sandboxes before their leases end', async () => {
  const child = await startProcess()
  const sessionId = await sessions.start(`echo on; sleep 28284271${own}`)
  await sessions.saying(sessionId, 'on')
  await plane.close()
  const left = performance.now()
  await expect.poll(() => pidsWith(`28284271${own}`), { timeout: leaseMs, interval: 20 }).toEqual([])
  expect(performance.now() - left).toBeLessThan(leaseMs)
  await startPlane()
  const ended = await sessions.ended(sessionId)
  expect(ended.status).toBe('failed')
  expect(ended.error?.code).toMatch(/WORKER_OUT_OF_CONTACT|LEASE|LOST/)
  expect(await stopped(child, 'SIGTERM')).toBe(0)
})

test('a worker that was removed ends and says why', async () => {
  const child = await startProcess({ PAWS_LOG_LEVEL: 'info' })
  const { body } = await plane.call<{ workers: { name: string }[] }>('GET', '/v1/fleet/workers')
  const exited = once(child, 'exit')
  for (const { name } of body.workers) await plane.call('DELETE', `/v1/fleet/workers/${name}`)
  expect((await exited)[0]).toBe(1)
})
