import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest'
import { callApi } from '../../../test/support/control-plane.ts'
import { type TestDatabase, testDatabase } from '../../../test/support/database.ts'

let database: TestDatabase
let folder: string
const children: ChildProcess[] = []
beforeAll(async () => {
  database = await testDatabase()
  folder = await mkdtemp(join(tmpdir(), 'paws-main-'))
})
afterEach(() => {
  for (const child of children) child.kill('SIGKILL')
})
afterAll(async () => {
  await database.close()
  await rm(folder, { recursive: true })
})

function start(env: Record<string, string>): ChildProcess {
  const child = spawn(process.execPath, [join(import.meta.dirname, 'main.ts')], {
    env: { PATH: process.env.PATH, ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  children.push(child)
  return child
}

async function startServing(): Promise<{ child: ChildProcess; url: string }> {
  const child = start({ DATABASE_URL: database.url, PORT: '0', PAWS_DATA: folder, PAWS_LOG_LEVEL: 'warn' })
  for await (const line of createInterface({ input: child.stdout as NodeJS.ReadableStream })) {
    const { listening } = JSON.parse(line) as { listening?: number }
    if (listening) return { child, url: `http://127.0.0.1:${listening}` }
  }
  throw new Error('The control plane ended before it listened')
}

const stop = async (child: ChildProcess, signal: NodeJS.Signals) => {
  child.kill(signal)
  return (await once(child, 'exit')) as [number | null, string | null]
}

test('it serves, drains at SIGTERM, and takes up after kill -9 what it was', async () => {
  const first = await startServing()
  const key = (await readFile(join(folder, 'first.key'), 'utf8')).trim()
  const { body: whoami } = await callApi<object>(`${first.url}/v1/whoami`, 'GET', { key })
  expect(await stop(first.child, 'SIGKILL')).toEqual([null, 'SIGKILL'])

  const second = await startServing()
  expect((await callApi(`${second.url}/v1/whoami`, 'GET', { key })).body).toEqual(whoami)
  expect((await readFile(join(folder, 'first.key'), 'utf8')).trim()).toBe(key)
  expect(await stop(second.child, 'SIGTERM')).toEqual([0, null])
})

test('it says what is wrong with its settings, and ends', async () => {
  const child = start({ PORT: 'many' })
  const said: Buffer[] = []
  child.stderr?.on('data', (chunk: Buffer) => said.push(chunk))
  expect(await once(child, 'close')).toEqual([1, null])
  expect(Buffer.concat(said).toString()).toContain('PORT must be a whole number from 0 to 65535')
})
