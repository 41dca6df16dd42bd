import { pino } from 'pino'
import { expect, test, vi } from 'vitest'
import { tellProgress } from './progress.ts'

const log = pino({ level: 'silent' })
const claim = { jobId: 'build-1', fence: 3 }

interface Report {
  fence: number
  progress: number
  step: string
  log: string
}

/** A control plane that answers as it is told to. */
function plane(answer: () => Promise<void> = async () => undefined) {
  const reports: Report[] = []
  const call = vi.fn(async (_: string, { body }: { body: Report }) => {
    await answer()
    reports.push(body)
  })
  const teller = tellProgress(claim, { link: { call: call as never }, log })
  return { reports, call, teller }
}

test('what is said arrives in order and whole, the last of it with the end', async () => {
  const { reports, teller } = plane()
  for (let at = 0; at < 500; at++) await teller.onLine(`${at} ${'x'.repeat(1_000)}`)
  teller.onProgress({ progress: 0.5, step: 'Halfway' })
  await teller.end()
  const said = reports.map((report) => report.log).join('')
  expect(said.split('\n').map((line) => line.split(' ')[0])).toEqual([...Array(500).keys(), ''].map(String))
  expect(Math.max(...reports.map((report) => report.log.length))).toBeLessThanOrEqual(200_000)
  expect(reports.at(-1)).toMatchObject({ fence: 3, progress: 0.5, step: 'Halfway' })
})

test('who says more than can be told waits, and a log has an end', async () => {
  const answered = Promise.withResolvers<void>()
  const { reports, teller } = plane(() => answered.promise)
  const line = 'x'.repeat(100_000)
  let waits = false
  const flood = (async () => {
    for (let at = 0; at < 300; at++) {
      waits = true
      await teller.onLine(line)
      waits = false
    }
  })()
  await vi.waitFor(() => expect(waits).toBe(true))
  await new Promise((resolve) => setTimeout(resolve, 100))
  expect([waits, reports.length]).toEqual([true, 0])
  answered.resolve()
  await flood
  await teller.end()
  const said = reports.map((report) => report.log).join('')
  expect(said).toMatch(/dropped\]\n$/)
  expect(said.length).toBeLessThan(17 * 1024 * 1024)
})

test('a control plane that is away holds nobody back for longer than the build', async () => {
  const { call, teller } = plane(async () => {
    throw new Error('away')
  })
  await teller.onLine('said')
  await vi.waitFor(() => expect(call.mock.calls.length).toBeGreaterThan(0))
  await teller.end()
  const tries = call.mock.calls.length
  await new Promise((resolve) => setTimeout(resolve, 700))
  expect(call.mock.calls.length).toBe(tries)
})
