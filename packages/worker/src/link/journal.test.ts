import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { appendFile, mkdtemp, readdir, readFile, rm, truncate, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { type Journal, type Journals, type Outcome, openJournals } from './journal.ts'

let folder: string
const opened: Journal[] = []

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'paws-journal-'))
})
afterEach(async () => {
  // One that the test has removed is closed already.
  for (const journal of opened.splice(0)) await journal.close().catch(() => undefined)
  await rm(folder, { recursive: true })
})

/** The journals of a worker that has just started. */
async function open(): Promise<Journals> {
  const journals = await openJournals(folder)
  const keep = (journal: Journal) => {
    opened.push(journal)
    return journal
  }
  return {
    begin: async (sessionId, fence) => keep(await journals.begin(sessionId, fence)),
    async leftovers() {
      const found = await journals.leftovers()
      for (const { journal } of found) keep(journal)
      return found
    },
  }
}

const outcome: Outcome = { status: 'completed', exitCode: 0, durationMs: 5, output: { a: 'é\n' } }
const chunk = (n: number) => ({ n, stream: 'stdout' as const, data: Buffer.from(`piece ${n}`).toString('base64') })

test('what was written is there for the next run, and gone once it is removed', async () => {
  const journal = await (await open()).begin('s1', 3)
  const places = await Promise.all([1, 2, 3].map((n) => journal.append(chunk(n))))
  expect(await journal.read(places[1] as (typeof places)[0])).toEqual(chunk(2))
  await journal.settle(outcome)
  const [found, ...more] = await (await open()).leftovers()
  expect(more).toEqual([])
  expect(found).toMatchObject({ outcome, journal: { sessionId: 's1', fence: 3, begunAt: journal.begunAt } })
  expect(found?.chunks.map(({ n }) => n)).toEqual([1, 2, 3])
  expect(await found?.journal.read(found.chunks[2] as (typeof places)[0])).toEqual(chunk(3))
  await found?.journal.remove()
  expect(await readdir(folder)).toEqual([])
})

test('a claim that comes again, under a new fence, has a journal of its own', async () => {
  const journals = await open()
  await (await journals.begin('s1', 1)).append(chunk(1))
  await (await journals.begin('s1', 2)).settle(outcome)
  await expect(journals.begin('s1', 2)).rejects.toMatchObject({ code: 'EEXIST' })
  expect((await journals.leftovers()).map(({ journal }) => journal.fence).sort()).toEqual([1, 2])
})

test('a line that a crash cut short, and what follows one of garbage, does not count', async () => {
  const journal = await (await open()).begin('s1', 1)
  await journal.append(chunk(1))
  const path = join(folder, 's1.1.jsonl')
  const whole = await readFile(path)
  for (const [added, expected] of [
    ['{"outcome":{"status":"comp', undefined],
    ['\0\0\0\0\n{"outcome":{"status":"completed","durationMs":1}}\n', undefined],
    [`${JSON.stringify({ outcome })}\n`, outcome],
  ] as const) {
    await truncate(path, whole.length)
    await appendFile(path, added)
    const [found] = await (await open()).leftovers()
    expect(found?.outcome).toEqual(expected)
    expect(found?.chunks.map(({ n }) => n)).toEqual([1])
  }
})

test('what is added to a journal that was cut short can be read again', async () => {
  await (await open()).begin('s1', 1)
  await appendFile(join(folder, 's1.1.jsonl'), '{"chunk":{"n":1,"str')
  const [found] = await (await open()).leftovers()
  await found?.journal.settle(outcome)
  expect((await (await open()).leftovers())[0]?.outcome).toEqual(outcome)
})

test('a file without a whole first line is nothing, and is removed', async () => {
  await writeFile(join(folder, 's1.1.jsonl'), '{"begin":{"sess')
  expect(await (await open()).leftovers()).toEqual([])
  expect(await readdir(folder)).toEqual([])
})

test('a writer that is killed loses nothing that it had said was written', async () => {
  const script = `
    const { openJournals } = await import(${JSON.stringify(new URL('./journal.ts', import.meta.url).href)})
    const journal = await (await openJournals(${JSON.stringify(folder)})).begin('s1', 1)
    for (let n = 1; ; n++) {
      await journal.append({ n, stream: 'stdout', data: Buffer.from('piece ' + n).toString('base64') })
      console.log(n)
    }`
  for (let round = 0; round < 3; round++) {
    const writer = spawn(process.execPath, ['--input-type=module', '-e', script], {
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    let said = 0
    createInterface(writer.stdout).on('line', (line) => {
      said = Number(line)
      if (said === 200 + 50 * round) writer.kill('SIGKILL')
    })
    await once(writer, 'close')
    const [found] = await (await open()).leftovers()
    expect(said).toBeGreaterThanOrEqual(200)
    expect(found?.chunks.length).toBeGreaterThanOrEqual(said)
    expect(found?.chunks.map(({ n }) => n)).toEqual(found?.chunks.map((_, index) => index + 1))
    expect(await found?.journal.read(found.chunks[said - 1] as { offset: number; length: number })).toEqual(chunk(said))
    await found?.journal.remove()
  }
})
