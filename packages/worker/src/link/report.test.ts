import { mkdtemp, readdir, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { pino } from 'pino'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { type Journals, type Outcome, openJournals } from './journal.ts'
import { openReport } from './report.ts'
import { type Plane, Refused, startPlane } from './testing/plane.ts'

const log = pino({ level: 'silent' })
const outcome: Outcome = { status: 'completed', exitCode: 0, durationMs: 1 }
let folder: string
let journals: Journals
let plane: Plane
let store: ReturnType<typeof openStore>
let closing: AbortController

/** What a control plane keeps of one session: each piece once, in order, until it has ended. */
function openStore() {
  const pieces: { stream: string; data: Buffer }[] = []
  const ends: Outcome[] = []
  const take = (first: number, chunks: { stream: string; data: string }[]) => {
    if (first > pieces.length + 1) throw new Refused(409, 'CONFLICT')
    for (const [index, { stream, data }] of chunks.entries()) {
      if (first + index === pieces.length + 1) pieces.push({ stream, data: Buffer.from(data, 'base64') })
    }
    return pieces.length
  }
  return {
    pieces,
    ends,
    text: (stream: string) => Buffer.concat(pieces.filter((p) => p.stream === stream).map((p) => p.data)).toString(),
    reportOutput: ({ first, chunks }: { first: number; chunks: { stream: string; data: string }[] }) => {
      if (ends.length > 0) throw new Refused(409, 'LEASE_LOST')
      return { stored: take(first, chunks) }
    },
    finishSession: (body: { first: number; chunks: { stream: string; data: string }[]; outcome: Outcome }) => {
      if (ends.length === 0) take(body.first, body.chunks)
      ends.push(body.outcome)
      return { status: body.outcome.status }
    },
  }
}

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'paws-report-'))
  journals = await openJournals(folder)
  store = openStore()
  plane = await startPlane({ reportOutput: store.reportOutput, finishSession: store.finishSession })
  closing = new AbortController()
})
afterEach(async () => {
  await plane.close()
  await rm(folder, { recursive: true })
})

async function open() {
  const journal = await journals.begin('s1', 7)
  return openReport({ link: plane.link, journal, log, closing: closing.signal })
}

test('the first output leaves at once, what follows leaves together', async () => {
  const report = await open()
  const begun = performance.now()
  await report.write('stdout', Buffer.from('first'))
  await expect.poll(() => store.text('stdout'), { interval: 1 }).toBe('first')
  expect(performance.now() - begun).toBeLessThan(500)
  for (let i = 0; i < 1_000; i++) await report.write(i % 2 ? 'stdout' : 'stderr', Buffer.from('.'))
  expect(await report.finish(outcome)).toBe('acknowledged')
  expect(store.text('stdout')).toBe(`first${'.'.repeat(500)}`)
  expect(store.text('stderr')).toBe('.'.repeat(500))
  expect(store.pieces.length).toBeLessThan(20)
  expect(store.ends).toEqual([outcome])
  expect(await readdir(folder)).toEqual([])
})

test('a control plane that fails and hangs up gets everything once, in order', async () => {
  let calls = 0
  const shaky =
    <B, A>(serve: (body: B) => A) =>
    async (body: B) => {
      calls++
      if (calls % 4 === 0) throw new Refused(503, 'NOT_READY')
      if (calls % 4 === 1) throw new Error('hang up before')
      const answer = serve(body)
      if (calls % 4 === 2) throw new Error('hang up after it was stored')
      return answer
    }
  plane.answering = { reportOutput: shaky(store.reportOutput), finishSession: shaky(store.finishSession) }
  const report = await open()
  const expected = Array.from({ length: 60 }, (_, i) => `line ${i} €\n`)
  for (const line of expected) {
    await report.write('stdout', Buffer.from(line))
    await sleep(2)
  }
  expect(await report.finish(outcome)).toBe('acknowledged')
  expect(store.text('stdout')).toBe(expected.join(''))
  expect(new Set(store.ends.map((end) => JSON.stringify(end))).size).toBe(1)
}, 30_000)

test('while the control plane is away output goes to the disk, not into memory, and all of it arrives later', async () => {
  plane.answering = {}
  const report = await open()
  const piece = Buffer.alloc(64 * 1024, 'x')
  const before = process.memoryUsage()
  for (let i = 0; i < 640; i++) await report.write('stdout', piece)
  await sleep(100)
  const after = process.memoryUsage()
  const grown = after.heapUsed + after.external - before.heapUsed - before.external
  expect(grown).toBeLessThan(30 * 1024 * 1024)
  plane.answering = { reportOutput: store.reportOutput, finishSession: store.finishSession }
  expect(await report.finish(outcome)).toBe('acknowledged')
  expect(store.text('stdout').length).toBe(640 * piece.length)
}, 30_000)

test('a lease that is lost ends the reporting, and says so', async () => {
  plane.answering = {
    reportOutput: () => {
      throw new Refused(409, 'LEASE_LOST')
    },
    finishSession: () => {
      throw new Refused(409, 'LEASE_LOST')
    },
  }
  const report = await open()
  await report.write('stdout', Buffer.from('x'))
  expect(await report.broken).toMatchObject({ status: 409, code: 'LEASE_LOST' })
  expect(await report.finish(outcome)).toBe('refused')
  expect(await readdir(folder)).toEqual([])
})

test('what a closing worker can not report is reported by its next run', async () => {
  plane.answering = {}
  const report = await open()
  await report.write('stdout', Buffer.from('said'))
  setTimeout(() => closing.abort(), 300)
  expect(await report.finish(outcome)).toBe('left')

  plane.answering = { reportOutput: store.reportOutput, finishSession: store.finishSession }
  const [found] = await (await openJournals(folder)).leftovers()
  expect(found?.outcome).toEqual(outcome)
  const { journal, chunks: earlier } = found as NonNullable<typeof found>
  const next = openReport({ link: plane.link, journal, log, closing: new AbortController().signal, earlier })
  expect(await next.finish(found?.outcome as Outcome)).toBe('acknowledged')
  expect(store.text('stdout')).toBe('said')
  expect(store.ends).toEqual([outcome])
  expect(await readdir(folder)).toEqual([])
})

test('a character that is not finished when the session ends is told as it is', async () => {
  const report = await open()
  await report.write('stdout', Buffer.from([0x61, 0xe2, 0x82]))
  await sleep(50)
  await report.finish(outcome)
  expect(Buffer.concat(store.pieces.map(({ data }) => data))).toEqual(Buffer.from([0x61, 0xe2, 0x82]))
})
