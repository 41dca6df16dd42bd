import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import pino, { type Logger } from 'pino'
import { readConfig } from '../../packages/control-plane/src/config.ts'
import { startControlPlane } from '../../packages/control-plane/src/main.ts'
import type { Services } from '../../packages/control-plane/src/services.ts'
import { checkAgainstContract } from './contract.ts'
import { type TestDatabase, testDatabase } from './database.ts'
import { record } from './recorder.ts'

/** What an error's body has; the type of an answer unless its caller says another. */
export interface ErrorAnswer {
  error: { code: string; message: string; requestId: string; details?: { path: string; message: string }[] }
}

export interface Answer<T> {
  status: number
  headers: Headers
  /** The parsed JSON, or the text of what is none */
  body: T
}

export interface CallOptions {
  /** Credential of the call; the first key unless set, none if null */
  key?: string | null
  /** Sent as JSON, unless it is a string or bytes */
  body?: unknown
  headers?: Record<string, string>
}

export interface PlayedWorker {
  workerId: string
  name: string
  credential: string
}

export interface TestControlPlane {
  url: string
  /** First key of the operator's organization */
  key: string
  orgId: string
  services: Services
  database: TestDatabase
  /** One call; a JSON answer is parsed */
  call<T = ErrorAnswer>(method: string, path: string, options?: CallOptions): Promise<Answer<T>>
  /** A worker that the test plays: what it says of itself, as the contract has it */
  enrolWorker(state: object, name?: string): Promise<PlayedWorker>
  /** A second organization with a key of its own */
  otherOrganization(): Promise<{ orgId: string; key: string }>
  close(): Promise<void>
}

export interface TestControlPlaneOptions {
  /** Several control planes against one; otherwise it has its own, and closes it */
  database?: TestDatabase
  /** Settings beyond the test's own, by the names of the environment */
  env?: Record<string, string>
  /** Folder of blobs and master key; shared by control planes that share a database */
  dataFolder?: string
  logLevel?: string
  /** Instead of one at that level */
  log?: Logger
}

/** A real control plane on a free port, in this process, over a database of its own. */
export async function startTestControlPlane(options: TestControlPlaneOptions = {}): Promise<TestControlPlane> {
  const database = options.database ?? (await testDatabase())
  const dataFolder = options.dataFolder ?? (await mkdtemp(join(tmpdir(), 'paws-test-')))
  const config = readConfig({
    DATABASE_URL: database.url,
    PORT: '0',
    PAWS_DATA: dataFolder,
    PAWS_DELIVERY_ALLOW: '127.0.0.0/8',
    ...options.env,
  })
  const log = options.log ?? pino({ level: options.logLevel ?? 'silent' })
  const controlPlane = await startControlPlane(config, log, {
    onAnswer: (operation, status, reply) => {
      record(operation, status)
      if (reply) checkAgainstContract(operation, reply)
    },
  })
  const url = `http://127.0.0.1:${controlPlane.port}`
  const key = (await readFile(join(dataFolder, 'first.key'), 'utf8')).trim()
  const call = <T = ErrorAnswer>(method: string, path: string, wish: CallOptions = {}) =>
    callApi<T>(`${url}${path}`, method, { key, ...wish })
  const { body: whoami } = await call<{ organization: { id: string } }>('GET', '/v1/whoami')
  return {
    url,
    key,
    orgId: whoami.organization.id,
    services: controlPlane.services,
    database,
    call,
    async enrolWorker(state, name = 'by-hand') {
      const token = await call<{ token: string }>('POST', '/v1/fleet/enrolment-tokens', { body: {} })
      const body = { name, state }
      return (await call<PlayedWorker>('POST', '/worker/enrol', { key: token.body.token, body })).body
    },
    async otherOrganization() {
      const made = await call<{ id: string; apiKey: { key: string } }>('POST', '/v1/orgs', {
        body: { name: 'Another' },
      })
      const { body } = made
      return { orgId: body.id, key: body.apiKey.key }
    },
    async close() {
      await controlPlane.close()
      if (!options.database) await database.close()
      if (!options.dataFolder) await rm(dataFolder, { recursive: true })
    },
  }
}

/** One call of any control plane's API. */
export async function callApi<T = ErrorAnswer>(url: string, method: string, options: CallOptions): Promise<Answer<T>> {
  const { key, body, headers } = options
  const raw = typeof body === 'string' || body instanceof Uint8Array || body === undefined
  const response = await fetch(url, {
    method,
    headers: {
      ...(key && { authorization: `Bearer ${key}` }),
      ...(body !== undefined && { 'content-type': 'application/json' }),
      ...headers,
    },
    body: raw ? (body as string | undefined) : JSON.stringify(body),
  })
  const text = await response.text()
  const json = response.headers.get('content-type')?.includes('json') && text !== ''
  return { status: response.status, headers: response.headers, body: (json ? JSON.parse(text) : text) as T }
}
