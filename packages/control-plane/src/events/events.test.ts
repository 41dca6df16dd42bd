import { setTimeout as sleep } from 'node:timers/promises'
import { sql } from 'kysely'
import pino from 'pino'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { type TestDatabase, testDatabase } from '../../../../test/support/database.ts'
import { appendEvents, type Events, followEvents, notify, openEvents } from './index.ts'

let database: TestDatabase
let events: Events
beforeEach(async () => {
  database = await testDatabase()
  events = await openEvents(database.url, pino({ level: 'silent' }))
})
afterEach(async () => {
  await events.close()
  await database.close()
})

const append = (seq: number, type = 'stdout') =>
  database.db
    .transaction()
    .execute((trx) => appendEvents(trx, 'session:1', seq, [{ type, data: Buffer.from(`${seq}`) }]))

async function collect(after: number, signal = AbortSignal.timeout(10_000)) {
  const seen: number[] = []
  const isEnd = (event: { type: string }) => event.type === 'done'
  for await (const event of followEvents(database.db, events, 'session:1', { after, isEnd, signal })) {
    expect(event.data.toString()).toBe(`${event.seq}`)
    seen.push(event.seq)
  }
  return seen
}

test('followers get every event once and in order, wherever they begin, and end with the last', async () => {
  const early = collect(0)
  const count = 450
  for (let seq = 1; seq <= count; seq++) await append(seq)
  const middle = collect(300)
  await append(count + 1, 'done')
  const all = Array.from({ length: count + 1 }, (_, index) => index + 1)
  expect(await early).toEqual(all)
  expect(await middle).toEqual(all.slice(300))
  expect(await collect(0)).toEqual(all)
})

test('an event reaches its followers within milliseconds of its commit', async () => {
  const isEnd = (event: { type: string }) => event.type === 'done'
  const signal = AbortSignal.timeout(10_000)
  const follower = followEvents(database.db, events, 'session:1', { after: 0, isEnd, signal })
  const delays: number[] = []
  for (let seq = 1; seq <= 50; seq++) {
    const next = follower.next()
    await sleep(2)
    await append(seq)
    const committed = performance.now()
    await next
    delays.push(performance.now() - committed)
  }
  await follower.return()
  expect(delays.toSorted((a, b) => a - b)[25]).toBeLessThan(10)
})

test('a wake-up between two waits is not lost', async () => {
  const subscription = events.subscribe('work')
  await notify(database.db, 'work')
  await notify(database.db, 'elsewhere')
  await sleep(50)
  expect(await subscription.wait(10_000)).toBe(true)
  expect(await subscription.wait(20)).toBe(false)
  expect(await subscription.wait(10_000, AbortSignal.timeout(20))).toBe(false)
  subscription.close()
})

test('nothing is told of what is rolled back', async () => {
  const subscription = events.subscribe('work')
  const rollback = database.db.transaction().execute(async (trx) => {
    await notify(trx, 'work')
    throw new Error('rolled back')
  })
  await expect(rollback).rejects.toThrow('rolled back')
  expect(await subscription.wait(100)).toBe(false)
  subscription.close()
})

test('a lost connection wakes everybody, is made again, and wakes once more', async () => {
  const heard: (string | null)[] = []
  events.listen('keys', (payload) => heard.push(payload))
  const subscription = events.subscribe('work')
  await sql`select pg_terminate_backend(pid) from pg_stat_activity
    where application_name = 'paws events' and datname = current_database()`.execute(database.db)
  expect(await subscription.wait(10_000)).toBe(true)
  while (!events.connected()) await sleep(10)
  expect(heard).toEqual([null, null])
  await notify(database.db, 'keys', 'key_1 with spaces')
  while (heard.length < 3) await sleep(5)
  expect(heard[2]).toBe('key_1 with spaces')
  subscription.close()
})
