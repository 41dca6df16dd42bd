import { once } from 'node:events'
import { createServer, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { text } from 'node:stream/consumers'
import type { Endpoint } from '@paws/api'
import { sql } from 'kysely'
import pino from 'pino'
import { afterAll, beforeAll, expect, test, vi } from 'vitest'
import { callApi } from './support/control-plane.ts'
import { operations } from './support/operations.ts'
import { fillPath, openWorld, type World } from './support/world.ts'

/*
 * Secrets go into the control plane by every way there is, and are then looked for in all that can be read of it. A
 * marker that is no secret goes the same ways, to see that the search finds what is there.
 */
const canary = 'cAnAry-4f1d9e/7+b2=8c'
const marker = 'mArker-90a3c5/1+e6=7d'

let world: World
let logged = ''
let receiver: Server
const callbacks: string[] = []

beforeAll(async () => {
  const write = (line: string) => {
    logged += line
  }
  const log = pino({ level: 'trace' }, { write })
  world = await openWorld({ log })
  receiver = createServer(async (request, response) => {
    callbacks.push(await text(request))
    response.writeHead(204).end()
  }).listen(0, '127.0.0.1')
  await once(receiver, 'listening')
})
afterAll(async () => {
  receiver.close()
  await world.close()
})

/** A value as it could stand somewhere, written in one way or another. */
function formsOf(value: string): string[] {
  const bytes = Buffer.from(value)
  // Base64 of what stands behind 0, 1 or 2 other bytes, without the characters that depend on the neighbours.
  const base64 = [0, 1, 2].map((before) => {
    const whole = Buffer.concat([Buffer.alloc(before), bytes]).toString('base64')
    return whole.slice(before === 0 ? 0 : 4, -4)
  })
  return [
    value,
    ...base64,
    ...base64.map((each) => each.replaceAll('+', '-').replaceAll('/', '_')),
    bytes.toString('hex'),
    encodeURIComponent(value),
    JSON.stringify(value).slice(1, -1).replaceAll('/', '\\/'),
  ]
}
const canaries = formsOf(canary)
const markers = formsOf(marker)
const holds = (found: string, forms: string[]) => forms.some((form) => found.includes(form))

function expectClean(place: string, found: string): void {
  expect(holds(found, canaries), `${place} holds the canary: ${found.slice(0, 2000)}`).toBe(false)
}

const credentials = {
  'a.test': { headers: { 'x-api-key': canary }, placeholders: { BOT_TOKEN: canary } },
  'b.test': { headers: { Authorization: { secret: 'CANARY', prefix: 'Bearer ' } } },
}

async function plant(): Promise<string[]> {
  const { plane } = world
  const answers: string[] = []
  const call = async (method: string, path: string, body?: unknown, headers: Record<string, string> = {}) => {
    const answer = await plane.call<{ sessionId: string }>(method, path, { body, headers })
    answers.push(`${method} ${path} ${JSON.stringify([...answer.headers])} ${JSON.stringify(answer.body)}`)
    return answer.body
  }
  await call('PUT', '/v1/secrets/CANARY', { value: `${canary} of before` })
  await call('PUT', '/v1/secrets/CANARY', { value: canary })
  await call('PUT', '/v1/secrets/0', { value: canary })
  await call('PUT', '/v1/secrets/CANARY', { value: `${canary}\n` })
  await call('PUT', '/v1/secrets/CANARY', { value: canary.repeat(2000) })
  await call('PUT', '/v1/secrets/CANARY', { value: [canary] })

  const session = {
    snapshot: 'minimal',
    workload: { type: 'script', script: 'true' },
    metadata: { marker },
    network: { credentials, auditLog: true },
    callbackUrl: `http://127.0.0.1:${(receiver.address() as AddressInfo).port}/`,
  }
  await call('POST', '/v1/sessions', session, { 'idempotency-key': 'canary' })
  await call('POST', '/v1/sessions', session, { 'idempotency-key': 'canary' })
  await call('POST', '/v1/sessions', { ...session, timeoutMs: 1 }, { 'idempotency-key': 'canary' })
  // What is refused must not be repeated to whoever sent it, nor to the log.
  const refused = [
    { 'a.test': { headers: { 'x-api-key': `${canary}\r\nx: y` } } },
    { 'a.test': { headers: { 'x-api-key': { secret: 'CANARY', prefix: `${canary}\n` } } } },
    { 'a.test': { headers: { 'x-api-key': canary, 'X-API-KEY': canary } } },
    { 'a.test': { headers: { host: canary } } },
    { 'a.test': { headers: { 'x-api-key': [canary] }, paths: ['v1'] } },
    { 'a.test': { placeholders: { 'not a name': canary } } },
    { 'a.test': { placeholders: { T: canary } }, 'c.test': { placeholders: { T: `${canary}2` } } },
    { 'no name': { headers: { 'x-api-key': canary } } },
  ]
  for (const [index, wrong] of refused.entries()) {
    const body = { ...session, network: { credentials: wrong } }
    await call('POST', '/v1/sessions', body, { 'idempotency-key': `refused ${index}` })
    await call('POST', '/v1/sessions', body, { 'idempotency-key': `refused ${index}` })
    expect(answers.at(-1)).toContain('VALIDATION_ERROR')
  }
  return answers
}

test('what is sent as a secret is told to the worker that has claimed it, and to nobody else', async () => {
  const answers = await plant()
  for (const answer of answers) expectClean('an answer', answer)
  expect(answers.filter((answer) => answer.includes('idempotent-replayed'))).toHaveLength(2)

  // One that can't be opened, since that is logged with its cause.
  const body = { snapshot: 'minimal', workload: { type: 'script', script: 'true' }, network: { credentials } }
  const broken = await world.plane.call<{ sessionId: string }>('POST', '/v1/sessions', { body })
  const damage = sql`update sessions set sealed_secrets = sealed_secrets || 'x' where id = ${broken.body.sessionId}`
  await damage.execute(world.plane.database.db)

  const pending = await readAll()
  const asWorker = (path: string, body: object) =>
    callApi(`${world.plane.url}/worker/${path}`, 'POST', { key: world.worker.credential, body })
  const claimed = await asWorker('claim', { sessions: 9, builds: 0, waitMs: 0 })
  const { claims } = claimed.body as unknown as { claims: { sessionId: string; network: object }[] }
  const own = claims.find(({ network }) => holds(JSON.stringify(network), canaries))
  expect(JSON.stringify(own?.network).split(canary)).toHaveLength(4)
  const sessionId = own?.sessionId ?? ''
  const running = await readAll(sessionId)

  const records = [{ at: new Date().toISOString(), decision: 'allowed', port: 443, host: 'a.test', credential: true }]
  const chunks = [{ stream: 'egress', data: Buffer.from(JSON.stringify(records)).toString('base64') }]
  const outcome = { status: 'completed', exitCode: 0, durationMs: 1 }
  await asWorker(`sessions/${sessionId}/finish`, { fence: 1, outcome, first: 1, chunks })
  await vi.waitFor(() => expect(callbacks).toHaveLength(1), { timeout: 20_000 })
  const ended = await readAll(sessionId)

  for (const reads of [pending, running, ended]) {
    for (const [place, found] of reads) expectClean(place, found)
  }
  for (const found of callbacks) expectClean('the callback', found)
  expectClean('the log', logged)
  expect(logged).toContain('the secrets of a session could not be opened')
  await searchDatabase()
  for (const place of ['getSession', 'listSessions', 'streamSessionEvents'] as const) {
    expect(holds(ended.get(place) ?? '', markers), `${place} holds the marker`).toBe(true)
  }
  expect(ended.get('streamSessionEvents')).toContain('event: egress')
  expect(ended.get('getSession')).toContain('"x-api-key":"***"')
  expect(holds(callbacks.join(), markers)).toBe(true)
})

/** Whatever a key may read, by every operation that there is for it. */
async function readAll(sessionId = world.params.sessionId ?? ''): Promise<Map<string, string>> {
  const reading = operations.filter(
    ({ endpoint }) => endpoint.method === 'get' && !['worker', 'enrolment'].includes(endpoint.access),
  )
  expect(reading.length).toBeGreaterThan(20)
  const found = await Promise.all(
    reading.map(async ({ id, endpoint }) => [id, await read(endpoint, sessionId)] as const),
  )
  return new Map(found)
}

async function read(endpoint: Endpoint, sessionId: string): Promise<string> {
  const path = fillPath(endpoint.path, { ...world.params, sessionId })
  const leaving = new AbortController()
  const headers = { authorization: `Bearer ${world.plane.key}` }
  const response = await fetch(`${world.plane.url}${path}`, { headers, signal: leaving.signal })
  // A stream of what has not ended goes on for ever.
  const timer = setTimeout(() => leaving.abort(), 1500)
  let body = ''
  try {
    const decoder = new TextDecoder()
    for await (const piece of response.body ?? []) body += decoder.decode(piece, { stream: true })
  } catch (error) {
    if (!leaving.signal.aborted) throw error
  } finally {
    clearTimeout(timer)
  }
  return `${response.status} ${JSON.stringify([...response.headers])} ${body}`
}

/** Every column of every row, as text and as the bytes that it may hold. */
async function searchDatabase(): Promise<void> {
  const { db } = world.plane.database
  const { rows: tables } = await sql<{ schema: string; name: string }>`
    select table_schema as schema, table_name as name from information_schema.tables
    where table_schema in ('public', 'pgboss') and table_type = 'BASE TABLE'`.execute(db)
  let seen = false
  for (const { schema, name } of tables) {
    const { rows } = await sql<{ row: string }>`
      select to_json(t)::text as row from ${sql.table(`${schema}.${name}`)} as t`.execute(db)
    for (const { row } of rows) {
      expectClean(`table ${name}`, row)
      seen ||= holds(row, markers)
    }
  }
  expect(seen).toBe(true)
}
