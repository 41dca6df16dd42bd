import { spawn } from 'node:child_process'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { endLeftovers, markProcess } from './leftovers.ts'
import { type Service, type Supervised, startNode, supervise } from './supervise.ts'

let folder: string
let supervised: Supervised | undefined

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'paws-supervise-'))
})
afterEach(async () => {
  supervised?.kill()
  await supervised?.stop()
  supervised = undefined
  await rm(folder, { recursive: true, force: true })
})

/** A program that notes each start and each SIGTERM in a file, and ends at the second one. */
async function program(): Promise<{ service: Service; notes(): Promise<string[]> }> {
  const main = join(folder, 'main.mjs')
  const file = join(folder, 'notes')
  await writeFile(file, '')
  await writeFile(
    main,
    `import { appendFileSync } from 'node:fs'
    const note = (text) => appendFileSync(${JSON.stringify(file)}, text + '\\n')
    let asked = 0
    process.on('SIGTERM', () => { note('asked'); if (++asked === 2) process.exit() })
    setInterval(() => {}, 1000)
    note('started')`,
  )
  const notes = async () => (await readFile(file, 'utf8')).trim().split('\n')
  const start = async () => {
    const before = (await notes()).filter((note) => note === 'started').length
    const running = await startNode({ main, env: {}, log: 2 })
    await expect.poll(async () => (await notes()).filter((note) => note === 'started').length).toBe(before + 1)
    return running
  }
  return { service: { name: 'noter', start }, notes }
}

test('a killed process is started again, and its new id is told', async () => {
  const { service, notes } = await program()
  const told: string[] = []
  supervised = await supervise(service, {
    backoffMs: 10,
    onRestart: (name, waitMs) => told.push(`${name} after ${waitMs} ms`),
    onStart: async () => void told.push('started'),
  })
  const first = supervised.pid()
  process.kill(first, 'SIGKILL')
  await expect.poll(() => told).toEqual(['noter after 10 ms', 'started'])
  expect(supervised.pid()).not.toBe(first)
  expect(await notes()).toEqual(['started', 'started'])
})

test('stop asks, asked again it hurries, and nothing is started after it', async () => {
  const { service, notes } = await program()
  const told: string[] = []
  supervised = await supervise(service, { backoffMs: 1, onRestart: (name) => told.push(name) })
  const stopped = supervised.stop()
  await expect.poll(notes).toEqual(['started', 'asked'])
  const again = supervised.stop()
  await Promise.all([stopped, again])
  expect(await notes()).toEqual(['started', 'asked', 'asked'])
  expect(told).toEqual([])
})

test('what can’t be started again is tried with growing pauses, saying why', async () => {
  const { service } = await program()
  let starts = 0
  const told: string[] = []
  const flaky: Service = {
    name: 'flaky',
    async start() {
      starts += 1
      if (starts === 2 || starts === 3) throw new Error(`no luck ${starts}`)
      return service.start()
    },
  }
  supervised = await supervise(flaky, {
    backoffMs: 5,
    onRestart: (_name, waitMs, error) => told.push(`${waitMs} ${error instanceof Error ? error.message : ''}`.trim()),
  })
  process.kill(supervised.pid(), 'SIGKILL')
  await expect.poll(() => starts).toBe(4)
  expect(told).toEqual(['5', '10 no luck 2', '20 no luck 3'])
})

test('stop during a pause ends the waiting', async () => {
  const { service } = await program()
  const waiting = Promise.withResolvers<void>()
  supervised = await supervise(service, { backoffMs: 60_000, onRestart: () => waiting.resolve() })
  process.kill(supervised.pid(), 'SIGKILL')
  await waiting.promise
  await supervised.stop()
})

test('a child is asked to end when its supervisor is killed', async () => {
  const { notes } = await program()
  const script = `
    const { startNode } = await import(${JSON.stringify(new URL('./supervise.ts', import.meta.url).href)})
    const { pid } = await startNode({ main: ${JSON.stringify(join(folder, 'main.mjs'))}, env: {}, log: 2 })
    console.log(pid)
    setInterval(() => {}, 1000)`
  const supervisor = spawn(process.execPath, ['--input-type=module', '-e', script], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  const pid = Number(await new Promise((done) => supervisor.stdout.once('data', done)))
  await expect.poll(notes).toEqual(['started'])
  const mark = await markProcess('child', pid)
  supervisor.kill('SIGKILL')
  // Linux sends it once for each thread of the dead that was the child's parent in turn, so perhaps more than once.
  await expect.poll(async () => (await notes()).slice(0, 2)).toEqual(['started', 'asked'])
  await endLeftovers([mark as NonNullable<typeof mark>], 100)
})
