import { type Endpoint, endpoints, isBytesBody, type OperationId } from '@paws/api'
import fc from 'fast-check'
import { sql } from 'kysely'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { garbage, type JsonSchema, mutated, nastyTexts, type Schemas, valuesOf } from './support/json-schema.ts'
import { fillPath, openWorld, type World } from './support/world.ts'

interface Operation {
  operationId: OperationId
  parameters?: { name: string; in: string; schema: JsonSchema }[]
  requestBody?: { content: Record<string, { schema: JsonSchema }> }
  responses: Record<string, unknown>
}
interface Document {
  paths: Record<string, Record<string, Operation>>
  components: { schemas: Schemas }
}

/** One generated request. */
interface Thrown {
  params: Record<string, string>
  query: [string, string][]
  body: unknown
}

const runs = 40

let world: World
let document: Document
/** Rows of every table: what is refused must leave them as they were. */
let rows: Record<string, number>
beforeAll(async () => {
  world = await openWorld()
  document = (await world.plane.call<Document>('GET', '/openapi.json')).body
  rows = await countRows()
})
afterAll(() => world.close())

test.each(Object.keys(endpoints) as OperationId[])('%s withstands whatever is thrown at it', async (id) => {
  const { path, method, operation } = find(id)
  await fc.assert(
    fc.asyncProperty(requests(operation), async (thrown) => {
      const answer = await send(id, path, method, thrown)
      const reached = answer.status !== 404 || answer.body?.error?.code !== 'NOT_FOUND'
      if (reached) expect(Object.keys(operation.responses)).toContain(String(answer.status))
      expect(answer.status, JSON.stringify(answer.body)).not.toBe(500)
      if (answer.status < 400) {
        rows = await countRows()
        return
      }
      expect(answer.requestId).toMatch(/^req_/)
      expect(answer.body?.error).toMatchObject({ code: expect.any(String), requestId: answer.requestId })
      if (answer.status === 400) {
        expect(answer.body?.error.code).toBe('VALIDATION_ERROR')
        expect(answer.body?.error.details).not.toHaveLength(0)
        for (const detail of answer.body?.error.details ?? []) {
          expect(detail).toEqual({ path: expect.any(String), message: expect.stringMatching(/./) })
        }
      }
      expect(await countRows()).toEqual(rows)
    }),
    { numRuns: runs, interruptAfterTimeLimit: 20_000 },
  )
})

function find(id: OperationId) {
  for (const [path, item] of Object.entries(document.paths)) {
    for (const [method, operation] of Object.entries(item)) {
      if (operation.operationId === id) return { path, method: method.toUpperCase(), operation }
    }
  }
  throw new Error(`/openapi.json lacks ${id}`)
}

function requests(operation: Operation): fc.Arbitrary<Thrown> {
  const { schemas } = document.components
  const parameters = operation.parameters ?? []
  const params = parameters.filter((each) => each.in === 'path').map(({ name }) => name)
  const queries = parameters.filter((each) => each.in === 'query')
  const schema = operation.requestBody?.content['application/json']?.schema
  const good = schema ? valuesOf(schema, schemas) : fc.constant(undefined)
  const query = queries.map(({ name, schema: each }) =>
    fc.tuple(fc.constant(name), fc.oneof(valuesOf(each, schemas).map(String), nastyTexts)),
  )
  return fc.record({
    params: fc.record(Object.fromEntries(params.map((name) => [name, idsFor(name)]))),
    query: fc.oneof(
      fc.subarray(query).chain((chosen) => fc.tuple(...chosen)),
      fc.array(fc.tuple(nastyTexts, nastyTexts)),
    ),
    body: schema ? fc.oneof(good, mutated(good), mutated(mutated(good)), garbage) : fc.constant(undefined),
  })
}

/** Ids that are there, that could be, and that are none. */
function idsFor(name: string): fc.Arbitrary<string> {
  const real = world.params[name] ?? ''
  return fc.oneof(
    { weight: 3, arbitrary: fc.constant(real) },
    fc.constant(real.replace(/.$/, 'f')),
    fc.uuid(),
    nastyTexts.filter((text) => text !== '' && text !== '.' && text !== '..').map((text) => text.toWellFormed()),
  )
}

async function send(id: OperationId, path: string, method: string, thrown: Thrown) {
  const { access, body: contract }: Endpoint = endpoints[id]
  const key =
    access === 'worker' ? world.worker.credential : access === 'enrolment' ? await freshToken() : world.plane.key
  const query = new URLSearchParams(
    thrown.query.map(([a, b]): [string, string] => [a.toWellFormed(), b.toWellFormed()]),
  ).toString()
  const bytes = isBytesBody(contract)
  const body = bytes ? 'bytes' : thrown.body === undefined ? undefined : JSON.stringify(tamed(id, thrown.body))
  const leaving = new AbortController()
  const response = await fetch(`${world.plane.url}${fillPath(path, thrown.params)}?${query}`, {
    method,
    signal: leaving.signal,
    headers: {
      authorization: `Bearer ${key}`,
      'content-type': bytes ? 'application/octet-stream' : 'application/json',
    },
    body: body ?? null,
  })
  const json = response.status >= 400 ? ((await response.json()) as { error: ErrorBody }) : undefined
  // Streams of what doesn't end would be read for ever.
  leaving.abort()
  return { status: response.status, requestId: response.headers.get('x-request-id'), body: json }
}

interface ErrorBody {
  code: string
  requestId: string
  details?: unknown[]
}

async function freshToken(): Promise<string> {
  const token = await world.enrolmentToken()
  rows = await countRows()
  return token
}

// A claim that is in order waits for up to 25 s, and takes what the other operations need pending.
function tamed(id: OperationId, body: unknown): unknown {
  if (id !== 'claim' || typeof body !== 'object' || body === null || Array.isArray(body)) return body
  const { waitMs, sessions, builds, ...rest } = body as Record<string, unknown>
  const tame = (value: unknown, to: number) => (value === undefined || Number.isInteger(value) ? to : value)
  return { ...rest, waitMs: tame(waitMs, 1), sessions: tame(sessions, 0), builds: tame(builds, 0) }
}

async function countRows(): Promise<Record<string, number>> {
  const { db } = world.plane.database
  const { rows: tables } = await sql<{ name: string }>`
    select tablename as name from pg_tables where schemaname = 'public' order by 1`.execute(db)
  const counts = tables.map(
    ({ name }) => sql`select ${sql.lit(name)} as name, count(*) as rows from ${sql.table(name)}`,
  )
  const { rows: counted } = await sql<{ name: string; rows: number }>`${sql.join(counts, sql` union all `)}`.execute(db)
  return Object.fromEntries(counted.map((each) => [each.name, each.rows]))
}
