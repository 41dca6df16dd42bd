import { randomUUID } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import { pino } from 'pino'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { type Claims, openClaims, openPlaces, type Places } from './claims.ts'
import { type Plane, Refused, startPlane } from './testing/plane.ts'

const log = pino({ level: 'silent' })
let plane: Plane
let claims: Claims
let sessions: Places
let asked: { sessions: number; builds: number }[]
let open: number
let pending: number
let begun: { id: string; end: () => void }[]

const sessionClaim = () => ({
  ...{ kind: 'session', sessionId: randomUUID(), fence: 1, leaseMs: 1_000, script: 'true', env: {}, timeoutMs: 1_000 },
  network: { allowOut: [], credentials: {}, auditLog: false },
  snapshot: { id: 'minimal', digest: 'sha256:0' },
  resources: { vcpus: 1, memoryMB: 256, diskMB: 256 },
})

/** Answers as soon as something is pending, or when the time is over. */
async function claim(body: { sessions: number; builds: number; waitMs: number }) {
  asked.push({ sessions: body.sessions, builds: body.builds })
  if (body.sessions === 0) {
    await sleep(body.waitMs)
    return { claims: [] }
  }
  open++
  for (const until = performance.now() + body.waitMs; pending === 0 && performance.now() < until; ) await sleep(5)
  open--
  const taken = Math.min(pending, body.sessions)
  pending -= taken
  return { claims: Array.from({ length: taken }, sessionClaim) }
}

beforeEach(async () => {
  asked = []
  begun = []
  pending = 0
  open = 0
  sessions = openPlaces(3)
  plane = await startPlane({ claim })
  claims = openClaims({
    ...{ link: plane.link, log, sessions, builds: openPlaces(1), waitMs: 300 },
    begin: (work) =>
      void begun.push({ id: work.kind === 'session' ? work.sessionId : work.jobId, end: sessions.take() }),
  })
})
afterEach(async () => {
  await claims.close()
  await plane.close()
  // A question that is still open would take what is meant for the next test.
  await expect.poll(() => open).toBe(0)
})

const forSessions = () => asked.filter(({ sessions }) => sessions > 0)

test('one question is open while a place is free, for as many as are free', async () => {
  await expect.poll(() => open).toBe(1)
  pending = 1
  await expect.poll(() => begun.length).toBe(1)
  await expect.poll(() => forSessions().at(-1)).toEqual({ sessions: 2, builds: 0 })
  await sleep(700)
  expect(open).toBe(1)
})

test('without a free place nothing is asked; a place that is given back asks at once', async () => {
  pending = 5
  await expect.poll(() => begun.length).toBe(3)
  const before = forSessions().length
  await sleep(500)
  expect(forSessions().length).toBe(before)
  begun[0]?.end()
  begun[0]?.end()
  await expect.poll(() => begun.length).toBe(4)
  expect(sessions.free).toBe(0)
  expect(pending).toBe(1)
})

test('a draining worker asks for nothing until it is told otherwise', async () => {
  await expect.poll(() => open).toBe(1)
  claims.pause(true)
  await sleep(350)
  const before = asked.length
  pending = 1
  await sleep(400)
  expect(asked.length).toBe(before)
  expect(begun).toEqual([])
  claims.pause(false)
  await expect.poll(() => begun.length).toBe(1)
})

test('a control plane that is away is asked again, ever more seldom, and work goes on when it is back', async () => {
  let failed = 0
  plane.answering = {
    claim: () => {
      failed++
      throw new Refused(503, 'NOT_READY')
    },
  }
  pending = 1
  await expect.poll(() => failed, { timeout: 3_000 }).toBeGreaterThan(3)
  expect(failed).toBeLessThan(20)
  plane.answering = { claim }
  await expect.poll(() => begun.length, { timeout: 6_000 }).toBe(1)
})
