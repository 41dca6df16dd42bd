import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import pino from 'pino'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { type TestDatabase, testDatabase } from '../../../../test/support/database.ts'
import { type Blobs, openBlobs } from '../blobs/index.ts'
import { type Events, openEvents } from '../events/index.ts'
import {
  addOrganization,
  addSnapshot,
  addWorker,
  claimOne,
  creating,
  openAftermath,
  request,
} from '../testing/fleet.ts'
import { archiveQueue, archiveSession } from './archive.ts'
import { createSession } from './create.ts'
import { streamEvents } from './events.ts'
import { finishSession } from './finish.ts'
import { findSession, getSession } from './get.ts'
import { readLogs } from './logs.ts'
import { type Chunk, storeOutput } from './output.ts'

let database: TestDatabase
let aftermath: Awaited<ReturnType<typeof openAftermath>>
let blobs: Blobs
let events: Events
let folder: string
let org: string
const log = pino({ level: 'silent' })
beforeAll(async () => {
  database = await testDatabase()
  aftermath = await openAftermath(database)
  folder = await mkdtemp(join(tmpdir(), 'paws-archive-'))
  blobs = await openBlobs({ blobs: folder })
  events = await openEvents(database.url, log)
  // Here the tests themselves say when it is moved.
  await aftermath.jobs.work(archiveQueue, {}, async () => undefined)
  org = await addOrganization(database.db)
  await addSnapshot(database.db)
})
afterAll(async () => {
  await events.close()
  await aftermath.close()
  blobs.close()
  await database.close()
  await rm(folder, { recursive: true })
})

/** 3 MiB of stdout in pieces of 64 KiB, each with its number, and a line of stderr before every tenth. */
const pieces = Array.from({ length: 48 }, (_, index): Chunk[] => {
  const data = Buffer.alloc(65_536, `${index} `)
  const stdout = { stream: 'stdout' as const, data }
  return index % 10 === 0 ? [{ stream: 'stderr', data: Buffer.from(`err ${index}\n`) }, stdout] : [stdout]
}).flat()
const wholeOf = (stream: string) => Buffer.concat(pieces.filter((one) => one.stream === stream).map(({ data }) => data))

async function runLongSession(): Promise<string> {
  const { db } = database
  const workerId = await addWorker(db)
  const options = await creating(db)
  const { sessionId } = await createSession(db, org, request(), options)
  const { fence } = await claimOne(db, workerId)
  const lease = { sessionId, workerId, fence }
  for (let at = 0; at < pieces.length; at += 8) await storeOutput(db, lease, at + 1, pieces.slice(at, at + 8))
  const outcome = { status: 'completed' as const, exitCode: 0, durationMs: 1 }
  await finishSession(db, aftermath, lease, { outcome, first: pieces.length + 1, chunks: [] })
  return sessionId
}

async function readAll(sessionId: string) {
  const { db } = database
  const session = await findSession(db, org, sessionId)
  const follow = async (after: number) => {
    const { signal } = new AbortController()
    const seen = []
    for await (const event of streamEvents({ db, events, blobs }, session, { after, signal })) seen.push(event)
    return seen
  }
  const logs = async (stream: 'stdout' | 'stderr') => {
    const read: Buffer[] = []
    for await (const piece of readLogs(db, blobs, session, stream)) read.push(piece)
    return Buffer.concat(read)
  }
  return {
    session: await getSession(db, org, sessionId),
    events: await follow(0),
    resumed: await follow(20),
    stdout: await logs('stdout'),
    stderr: await logs('stderr'),
  }
}

test('a long output moves to blobs, and every way to read it answers as before', async () => {
  const sessionId = await runLongSession()
  const before = await readAll(sessionId)
  expect(before.stdout.equals(wholeOf('stdout'))).toBe(true)
  expect(before.stderr.equals(wholeOf('stderr'))).toBe(true)
  expect(before.events.map(({ id }) => id)).toEqual(Array.from({ length: pieces.length + 4 }, (_, index) => index + 1))
  expect(before.resumed).toEqual(before.events.slice(20))

  // 32 of 48 pieces lie wholly before the last MiB; stderr stays, being short.
  expect(await archiveSession(database.db, blobs, sessionId)).toBe(32)
  expect(await archiveSession(database.db, blobs, sessionId)).toBe(0)
  const after = await readAll(sessionId)
  expect(after.session).toEqual(before.session)
  expect(after.events).toEqual(before.events)
  expect(after.resumed).toEqual(before.resumed)
  expect(after.stdout.equals(before.stdout)).toBe(true)
  expect(after.stderr.equals(before.stderr)).toBe(true)
})

test('a reader loses nothing when the output is moved while it reads', async () => {
  const sessionId = await runLongSession()
  const session = await findSession(database.db, org, sessionId)
  const reader = readLogs(database.db, blobs, session, 'stdout')
  const first = await reader.next()
  await archiveSession(database.db, blobs, sessionId)
  const rest: Buffer[] = []
  for await (const piece of reader) rest.push(piece)
  const whole = Buffer.concat([first.value ?? Buffer.alloc(0), ...rest])
  expect(whole.equals(wholeOf('stdout'))).toBe(true)
})

test('whoever has seen the last event of an ended session waits for nothing', async () => {
  const sessionId = await runLongSession()
  const session = await findSession(database.db, org, sessionId)
  const { signal } = new AbortController()
  const services = { db: database.db, events, blobs }
  const seen = []
  for await (const event of streamEvents(services, session, { after: session.lastSeq, signal })) seen.push(event)
  expect(seen).toEqual([])
})
