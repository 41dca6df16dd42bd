import { execFileSync } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { createServer, type IncomingMessage, type RequestListener } from 'node:http'
import { createServer as createTlsServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Webhook } from 'standardwebhooks'
import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import { type TestDatabase, testDatabase } from '../../../../test/support/database.ts'
import { createSession, finishSession, getSession } from '../sessions/index.ts'
import {
  addOrganization,
  addSnapshot,
  addWorker,
  claimOne,
  creating,
  openAftermath,
  request,
  testSecret,
} from '../testing/fleet.ts'
import type { DeliveriesOptions } from './deliveries.ts'

interface Received {
  method: string | undefined
  path: string | undefined
  headers: Record<string, string>
  body: string
  atMs: number
}

let database: TestDatabase
let org: string
let workerId: string
const closers: (() => unknown)[] = []
beforeEach(async () => {
  database = await testDatabase()
  org = await addOrganization(database.db)
  await addSnapshot(database.db)
  workerId = await addWorker(database.db)
  closers.push(() => database.close())
})
afterEach(async () => {
  for (const close of closers.splice(0).reverse()) await close()
})

/** A receiver on this machine; `answer` gives each request's status, counted from 0. */
async function receiver(answer: (count: number) => number | [number, Record<string, string>], tls?: object) {
  const received: Received[] = []
  const listener: RequestListener = async (incoming, response) => {
    const body = await text(incoming)
    const { method, url: path, headers } = incoming
    const given = answer(received.length)
    received.push({ method, path, headers: headers as Record<string, string>, body, atMs: performance.now() })
    const [status, more] = Array.isArray(given) ? given : [given, {}]
    response.writeHead(status, more).end('thanks')
  }
  const server = tls ? createTlsServer(tls, listener) : createServer(listener)
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  closers.push(() => {
    server.closeAllConnections()
    server.close()
  })
  const { port } = server.address() as AddressInfo
  return { received, port, url: `${tls ? 'https' : 'http'}://127.0.0.1:${port}/hook?a=1` }
}

async function text(incoming: IncomingMessage): Promise<string> {
  const pieces: Buffer[] = []
  for await (const piece of incoming) pieces.push(piece)
  return Buffer.concat(pieces).toString()
}

/** Runs a session whose end is told to a URL. */
async function endSession(url: string, options: Partial<DeliveriesOptions> = {}) {
  const { db } = database
  const aftermath = await openAftermath(database, { scheduleMs: [0, 50, 50, 50], ...options })
  closers.push(() => aftermath.close())
  const vetted = await creating(db)
  const { sessionId } = await createSession(db, org, request({ callbackUrl: url, metadata: { issue: '1' } }), vetted)
  const { fence } = await claimOne(db, workerId)
  const outcome = { status: 'completed' as const, exitCode: 0, durationMs: 1 }
  const chunks = [{ stream: 'stdout' as const, data: Buffer.from('hello\n') }]
  await finishSession(db, aftermath, { sessionId, workerId, fence }, { outcome, first: 1, chunks })
  return { sessionId, endedMs: performance.now() }
}

const delivery = () => database.db.selectFrom('deliveries').selectAll().executeTakeFirstOrThrow()
const settled = (status: string) =>
  vi.waitFor(async () => expect(await delivery()).toMatchObject({ status }), { timeout: 25_000, interval: 50 })

test('the end of a session is posted at once, signed, and its body is what GET answers', async () => {
  const { received, url } = await receiver(() => 204)
  const { sessionId, endedMs } = await endSession(url)
  await settled('delivered')
  const [first] = received
  if (!first) throw new Error('Nothing was received')
  expect(first).toMatchObject({ method: 'POST', path: '/hook?a=1' })
  expect(first.headers['content-type']).toBe('application/json')
  expect(first.headers['webhook-id']).toBe((await delivery()).id)
  const said = new Webhook(testSecret).verify(first.body, first.headers)
  expect(said).toEqual(JSON.parse(JSON.stringify(await getSession(database.db, org, sessionId))))
  expect(said).toMatchObject({ status: 'completed', stdout: 'hello\n', metadata: { issue: '1' } })
  // By a wake-up and not by the next poll, which is seconds away.
  expect(first.atMs - endedMs).toBeLessThan(1500)
  expect(received).toHaveLength(1)
})

test('while two secrets overlap, each of them verifies', async () => {
  const { received, url } = await receiver(() => 200)
  const old = `whsec_${Buffer.alloc(32, 9).toString('base64')}`
  await endSession(url, { secrets: async () => [testSecret, old] })
  await settled('delivered')
  const { body = '', headers = {} } = received[0] ?? {}
  for (const secret of [testSecret, old]) expect(new Webhook(secret).verify(body, headers)).toBeTruthy()
  const stranger = new Webhook(`whsec_${Buffer.alloc(32, 1).toString('base64')}`)
  expect(() => stranger.verify(body, headers)).toThrow('No matching signature found')
})

test('what fails is tried again under the same id, signed anew, until it is accepted', async () => {
  const { received, url } = await receiver((count) => (count < 2 ? 500 : 200))
  await endSession(url)
  await settled('delivered')
  expect(received).toHaveLength(3)
  expect(new Set(received.map(({ headers }) => headers['webhook-id'])).size).toBe(1)
  for (const { body, headers } of received) expect(new Webhook(testSecret).verify(body, headers)).toBeTruthy()
  expect(await delivery()).toMatchObject({ attempts: 3, lastStatus: 200 })
})

test('an attempt that breaks off because the control plane stops is made again by the next one', async () => {
  let hanging = true
  const server = createServer((_request, response) => {
    if (!hanging) response.end()
  }).listen(0, '127.0.0.1')
  closers.push(() => {
    server.closeAllConnections()
    server.close()
  })
  await once(server, 'listening')
  const requested = once(server, 'request')
  await endSession(`http://127.0.0.1:${(server.address() as AddressInfo).port}/`)
  await requested
  await closers.pop()?.()
  expect(await delivery()).toMatchObject({ status: 'pending', attempts: 0 })
  hanging = false
  const next = await openAftermath(database)
  closers.push(() => next.close())
  await settled('delivered')
  expect(await delivery()).toMatchObject({ attempts: 1, lastError: null })
})

test('410 stops it', async () => {
  const { received, url } = await receiver(() => 410)
  await endSession(url)
  await settled('stopped')
  expect(await delivery()).toMatchObject({ attempts: 1, lastStatus: 410 })
  expect(received).toHaveLength(1)
})

test('a redirect is not followed: it is a failure, and after the last attempt it is given up', async () => {
  const target = await receiver(() => 200)
  const { received, url } = await receiver(() => [302, { location: target.url }])
  await endSession(url, { scheduleMs: [0, 50] })
  await settled('exhausted')
  expect(await delivery()).toMatchObject({ attempts: 2, lastStatus: 302 })
  expect(received).toHaveLength(2)
  expect(target.received).toEqual([])
})

test('a public name that leads to a private address is refused when it is dialled, with the reason', async () => {
  const { received, port } = await receiver(() => 200)
  const resolve = async () => [
    { address: '93.184.215.14', family: 4 },
    { address: '127.0.0.1', family: 4 },
  ]
  await endSession(`https://rebound.example.com:${port}/`, { allow: [], resolve, scheduleMs: [0] })
  await settled('exhausted')
  expect((await delivery()).lastError).toBe('rebound.example.com leads to 127.0.0.1 is not a public address (loopback)')
  expect(received).toEqual([])
})

test('a literal private address that was stored while it was open is refused at delivery', async () => {
  const { received, url } = await receiver(() => 200)
  await endSession(url.replace('http:', 'https:'), { allow: [], scheduleMs: [0] })
  await settled('exhausted')
  expect((await delivery()).lastError).toContain('127.0.0.1 is not a public address (loopback)')
  expect(received).toEqual([])
})

test('the certificate is verified, by authorities that the operator added too', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'paws-delivery-'))
  closers.push(() => rm(folder, { recursive: true }))
  const [key, cert] = [join(folder, 'key.pem'), join(folder, 'cert.pem')]
  const subject = ['-subj', '/CN=hooks.example.com', '-addext', 'subjectAltName=DNS:hooks.example.com']
  const kind = ['-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '1']
  execFileSync('openssl', ['req', ...kind, '-keyout', key, '-out', cert, ...subject], { stdio: 'ignore' })
  const { received, port } = await receiver(() => 200, { key: await readFile(key), cert: await readFile(cert) })
  const resolve = async () => [{ address: '127.0.0.1', family: 4 }]
  const url = `https://hooks.example.com:${port}/`

  await endSession(url, { resolve, scheduleMs: [0] })
  await settled('exhausted')
  expect((await delivery()).lastError).toContain('self-signed certificate')
  expect(received).toEqual([])

  await database.db.deleteFrom('deliveries').execute()
  await closers.pop()?.()
  await endSession(url, { resolve, extraCa: [await readFile(cert, 'utf8')] })
  await settled('delivered')
  expect(received).toHaveLength(1)
})
