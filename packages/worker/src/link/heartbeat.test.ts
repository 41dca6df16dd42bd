import { setTimeout as sleep } from 'node:timers/promises'
import { pino } from 'pino'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { type Heartbeat, type Lease, marginMs, openHeartbeat, type WorkerState } from './heartbeat.ts'
import { type Answering, type Plane, Refused, startPlane } from './testing/plane.ts'

const log = pino({ level: 'silent' })
const state: WorkerState = {
  version: '1',
  isolation: 'process',
  limitations: [],
  maxSessions: 1,
  resources: { vcpus: 1, memoryMB: 1, diskMB: 1 },
  snapshots: [],
}
const leaseMs = 1_200
let plane: Plane
let heartbeat: Heartbeat
let beats: { at: number; held: { id: string; fence: number }[] }[]

const answer = { leaseMs, lost: [] as string[], cancel: [] as string[], draining: false }
const answering = (more: Partial<typeof answer> = {}): Answering => ({
  heartbeat: ({ held }) => {
    beats.push({ at: performance.now(), held })
    return { ...answer, ...more }
  },
})

beforeEach(async () => {
  beats = []
  plane = await startPlane(answering())
  heartbeat = openHeartbeat({ link: plane.link, log, state: async () => state })
})
afterEach(async () => {
  await heartbeat.close()
  await plane.close()
})

function hold(id: string) {
  const happened: { what: string; at: number }[] = []
  const note = (what: string) => () => void happened.push({ what, at: performance.now() })
  const lease: Lease = {
    ...{ kind: 'session', id, fence: 2, leaseMs },
    onLost: note('lost'),
    onCancel: note('cancel'),
    onOutOfContact: note('out of contact'),
  }
  return { happened, release: heartbeat.hold(lease), since: performance.now() }
}

test('leases are renewed often enough, until they are given back', async () => {
  const { happened, release } = hold('s1')
  await sleep(2 * leaseMs)
  expect(happened).toEqual([])
  const renewals = beats.filter(({ held }) => held.some(({ id, fence }) => id === 's1' && fence === 2))
  expect(renewals.length).toBeGreaterThan(8)
  release()
  await sleep(leaseMs)
  expect(happened).toEqual([])
  expect(beats.filter(({ held }) => held.length > 0).length - renewals.length).toBeLessThanOrEqual(1)
})

test('out of contact, a lease is given up well before its end, counted from the last renewal', async () => {
  const { happened } = hold('s1')
  await expect.poll(() => beats.filter(({ held }) => held.length > 0).length).toBeGreaterThan(2)
  plane.answering = {}
  const last = beats.at(-1)?.at as number
  await expect.poll(() => happened.length, { timeout: 2 * leaseMs, interval: 5 }).toBe(1)
  const [{ what, at }] = happened as [{ what: string; at: number }]
  expect(what).toBe('out of contact')
  expect(at - last).toBeLessThanOrEqual(leaseMs - marginMs(leaseMs) + 30)
  expect(at - last).toBeGreaterThan(leaseMs / 2)
})

test('a pause that is shorter than the lease costs nothing', async () => {
  const { happened } = hold('s1')
  await expect.poll(() => beats.length).toBeGreaterThan(1)
  plane.answering = {}
  await sleep(leaseMs / 3)
  plane.answering = answering()
  await sleep(2 * leaseMs)
  expect(happened).toEqual([])
})

test('an answer that was long under way renews from when it was asked for', async () => {
  const { happened, since } = hold('s1')
  plane.answering = {
    heartbeat: async () => {
      await sleep(leaseMs * 0.7)
      return answer
    },
  }
  await expect.poll(() => happened.length, { timeout: 3 * leaseMs, interval: 5 }).toBeGreaterThan(0)
  expect((happened[0] as { at: number }).at - since).toBeLessThan(2 * leaseMs)
})

test('what is lost or cancelled is told, to the one it concerns', async () => {
  const [lost, cancelled, other] = ['s1', 's2', 's3'].map(hold) as [
    ReturnType<typeof hold>,
    ReturnType<typeof hold>,
    ReturnType<typeof hold>,
  ]
  plane.answering = answering({ lost: ['s1'], cancel: ['s2'] })
  await expect.poll(() => lost.happened[0]?.what).toBe('lost')
  await expect.poll(() => cancelled.happened[0]?.what).toBe('cancel')
  expect(other.happened).toEqual([])
})

test('draining is told when it begins and when it ends', async () => {
  const told: boolean[] = []
  heartbeat.onDraining(() => told.push(heartbeat.draining))
  hold('s1')
  plane.answering = answering({ draining: true })
  await expect.poll(() => told).toEqual([true])
  plane.answering = answering()
  await expect.poll(() => told).toEqual([true, false])
})

test('a credential that is refused is told', async () => {
  hold('s1')
  plane.answering = {
    heartbeat: () => {
      throw new Refused(401, 'UNAUTHORIZED')
    },
  }
  expect(await heartbeat.revoked).toMatchObject({ status: 401, code: 'UNAUTHORIZED' })
})
