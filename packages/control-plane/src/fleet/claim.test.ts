import { sql } from 'kysely'
import pino from 'pino'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { type TestDatabase, testDatabase } from '../../../../test/support/database.ts'
import { openEvents } from '../events/index.ts'
import { createSession } from '../sessions/index.ts'
import {
  addOrganization,
  addSnapshot,
  addWorker,
  claimOne,
  creating,
  leaseMs,
  openAftermath,
  request,
  workerState,
} from '../testing/fleet.ts'
import { claim } from './claim.ts'
import { claimSessions, claimStatement, findTaker } from './claim-sessions.ts'

let database: TestDatabase
let org: string
beforeEach(async () => {
  database = await testDatabase()
  org = await addOrganization(database.db)
  await addSnapshot(database.db)
})
afterEach(() => database.close())

const create = async (orgId = org, differing: object = {}) =>
  (await createSession(database.db, orgId, request(differing), await creating(database.db))).sessionId

/** Thousands of rows at once, with one event of each left out: claiming doesn't read events. */
async function fill(orgId: string, status: string, count: number) {
  await sql`
    insert into sessions (id, org_id, status, snapshot_id, script, env, vcpus, memory_mb, disk_mb, timeout_ms,
      started_at, completed_at, created_at)
    select gen_random_uuid(), ${orgId}, ${status}, 'minimal', 'x', '{}', 1, 512, 512, 1000,
      case when ${status} <> 'pending' then now() end, case when ${status} = 'completed' then now() end,
      now() - (number || ' ms')::interval
    from generate_series(1, ${count}::int) as number`.execute(database.db)
}

test('what is claimed has what a worker needs, a lease and a fence that counts up', async () => {
  const worker = await addWorker(database.db)
  const script = '#!/bin/sh\nprintf "\0ü$(x)"'
  const id = await create(org, { workload: { type: 'script', script, env: { A: '\ud800 "quoted"' } } })
  const claimed = await claimOne(database.db, worker)
  expect(claimed).toEqual({
    kind: 'session',
    sessionId: id,
    fence: 1,
    leaseMs,
    snapshot: { id: 'minimal', digest: `sha256:${'a'.repeat(64)}` },
    script,
    env: { A: '\ud800 "quoted"' },
    resources: { vcpus: 2, memoryMB: 4096, diskMB: 10_240 },
    timeoutMs: 600_000,
    network: { allowOut: [], credentials: {}, auditLog: false },
  })
  const row = await database.db.selectFrom('sessions').selectAll().where('id', '=', id).executeTakeFirstOrThrow()
  expect(row).toMatchObject({ status: 'running', workerId: worker, fence: 1, isolation: 'process' })
  expect(Number(row.leaseExpiresAt) - Number(row.startedAt)).toBeGreaterThanOrEqual(leaseMs)
})

test('workers that claim at once never get the same session, and together get all', async () => {
  const other = await addOrganization(database.db)
  await fill(org, 'pending', 150)
  await fill(other, 'pending', 50)
  const workers = await Promise.all(Array.from({ length: 8 }, () => addWorker(database.db)))
  const taken = await Promise.all(
    workers.map(async (workerId, index) => {
      const own: string[] = []
      for (;;) {
        const { claimed, passedOver } = await claimSessions(database.db, { workerId, limit: 1 + (index % 4), leaseMs })
        own.push(...claimed.map(({ sessionId }) => sessionId))
        if (claimed.length === 0 && passedOver === 0) return own
      }
    }),
  )
  const all = taken.flat()
  expect(all).toHaveLength(200)
  expect(new Set(all).size).toBe(200)
})

test('sessions of one organization start in order of creation', async () => {
  const worker = await addWorker(database.db)
  const ids = [await create(), await create(), await create()]
  const { claimed } = await claimSessions(database.db, { workerId: worker, limit: 3, leaseMs })
  expect(claimed.map(({ sessionId }) => sessionId)).toEqual(ids)
})

test('a small organization is served in turn with one that has queued hundreds before it', async () => {
  const worker = await addWorker(database.db)
  await fill(org, 'pending', 300)
  const small = await addOrganization(database.db)
  const own = [await create(small), await create(small)]
  const { claimed } = await claimSessions(database.db, { workerId: worker, limit: 4, leaseMs })
  expect(claimed.filter(({ sessionId }) => own.includes(sessionId))).toHaveLength(2)

  // The one with fewer running goes first.
  const third = await addOrganization(database.db)
  const late = await create(third)
  expect((await claimOne(database.db, worker)).sessionId).toBe(late)
})

test('a worker gets only what it could run: isolation, vcpus, memory', async () => {
  const processes = await addWorker(database.db)
  const vms = await addWorker(database.db, workerState({ isolation: 'qemu/tcg' }))
  const vm = await create(org, { isolation: 'vm' })
  await fill(org, 'pending', 1)
  await sql`update sessions set vcpus = 8 where id <> ${vm}`.execute(database.db)
  const take = (workerId: string) => claimSessions(database.db, { workerId, limit: 5, leaseMs })
  expect(await take(processes)).toEqual({ claimed: [], passedOver: 0 })
  expect((await take(vms)).claimed.map(({ sessionId }) => sessionId)).toEqual([vm])
})

test('the memory of microVMs is reserved; under the process driver it is only a limit', async () => {
  const vms = await addWorker(database.db, workerState({ isolation: 'qemu/tcg' }))
  const processes = await addWorker(database.db)
  const take = async (workerId: string) => (await claimSessions(database.db, { workerId, limit: 5, leaseMs })).claimed
  // 4096 MB each, of 8192.
  for (let count = 0; count < 6; count++) await create()
  expect(await take(vms)).toHaveLength(2)
  expect(await take(vms)).toHaveLength(0)
  expect(await take(processes)).toHaveLength(4)
})

test('a draining worker gets nothing', async () => {
  const worker = await addWorker(database.db)
  await create()
  await database.db.updateTable('workers').set({ draining: true }).where('id', '=', worker).execute()
  expect(await claimSessions(database.db, { workerId: worker, limit: 5, leaseMs })).toEqual({
    claimed: [],
    passedOver: 0,
  })
})

test('a session whose snapshot is not built waits, and those behind it do not', async () => {
  const worker = await addWorker(database.db)
  await addSnapshot(database.db, 'other')
  await database.db.deleteFrom('snapshots').where('id', '=', 'minimal').execute()
  const waiting = await create()
  const ready = await create(org, { snapshot: 'other' })
  expect((await claimOne(database.db, worker)).sessionId).toBe(ready)
  await addSnapshot(database.db, 'minimal')
  expect((await claimOne(database.db, worker)).sessionId).toBe(waiting)
})

test('a waiting claim wakes when a session is created, and ends empty when its time has passed', async () => {
  const { db, url } = database
  const log = pino({ level: 'silent' })
  const events = await openEvents(url, log)
  const aftermath = await openAftermath(database)
  const { vault } = await creating(db)
  const services = { db, events, vault, log, ...aftermath }
  try {
    const worker = await addWorker(db)
    const wish = { workerId: worker, sessions: 1, builds: 0, leaseMs, signal: new AbortController().signal }
    expect(await claim(services, { ...wish, waitMs: 50 })).toEqual([])
    const waiting = claim(services, { ...wish, waitMs: 20_000 })
    const before = performance.now()
    const id = await create()
    expect(await waiting).toMatchObject([{ sessionId: id }])
    // Far less than the time after which it would have looked again by itself.
    expect(performance.now() - before).toBeLessThan(2000)
  } finally {
    await aftermath.close()
    await events.close()
  }
})

test('claiming reads neither the whole queue nor the history', async () => {
  const { db } = database
  const worker = await addWorker(db)
  await fill(org, 'completed', 20_000)
  await fill(org, 'pending', 5000)
  const taker = await findTaker(db, worker)
  if (!taker) throw new Error('The worker is gone')
  // Both without statistics, as in the first minutes, and with them.
  for (const prepare of ['select 1', 'analyze sessions']) {
    await sql.raw(prepare).execute(db)
    const { rows } = await sql<Record<string, [{ Plan: PlanNode }]>>`
      explain (analyze, format json) ${claimStatement(taker, { limit: 1, leaseMs })}`.execute(db)
    const nodes = Object.values(rows[0] ?? {}).flatMap(([{ Plan }]) => flatten(Plan))
    const onSessions = nodes.filter((node) => node['Relation Name'] === 'sessions')
    expect(onSessions.length).toBeGreaterThan(3)
    expect(onSessions.filter((node) => node['Node Type'] === 'Seq Scan')).toEqual([])
    expect(nodes.map((node) => node['Index Name'])).toContain('sessions_pending')
    expect(Math.max(...onSessions.map((node) => node['Actual Rows']))).toBeLessThan(100)
  }
})

interface PlanNode {
  'Node Type': string
  'Relation Name'?: string
  'Index Name'?: string
  'Actual Rows': number
  Plans?: PlanNode[]
}

const flatten = (node: PlanNode): PlanNode[] => [node, ...(node.Plans ?? []).flatMap(flatten)]
