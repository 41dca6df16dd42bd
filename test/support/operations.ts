import { type Endpoint, endpoints, isBytesBody, type OperationId } from '@paws/api'
import { type CallOptions, callApi } from './control-plane.ts'
import { sendRaw } from './http.ts'
import { fillPath, type World, workerState } from './world.ts'

/** Every operation of the contract. */
export const operations = (Object.entries(endpoints) as [OperationId, Endpoint][]).map(([id, endpoint]) => ({
  id,
  endpoint,
}))

/** A body that each operation accepts: what is refused here must not be refused for its body. */
const bodies: Partial<Record<OperationId, unknown>> = {
  createSession: { snapshot: 'private', workload: { type: 'script', script: 'true' } },
  execInSession: { command: ['true'] },
  createSnapshotConfig: { id: 'made', setup: 'true' },
  updateSnapshotConfig: { setup: 'true' },
  putSecret: { value: 'x', hosts: ['api.example.com'] },
  createEnrolmentToken: {},
  createOrganization: { name: 'x' },
  updateOrganization: { name: 'x' },
  createApiKey: { name: 'x' },
  rotateApiKey: {},
  rotateWebhookSecret: {},
  enrolWorker: { name: 'x', state: workerState },
  heartbeat: { state: workerState, held: [] },
  claim: { sessions: 0, builds: 0, waitMs: 0 },
  reportOutput: { fence: 1, first: 1, chunks: [] },
  finishSession: { fence: 1, outcome: { status: 'completed', exitCode: 0, durationMs: 1 }, first: 1, chunks: [] },
  reportBuild: { fence: 1, progress: 0.5, step: 'x', log: '' },
  finishBuild: { fence: 1, outcome: { status: 'failed', error: 'x' } },
}

const queries: Partial<Record<OperationId, string>> = { readSessionFile: '?path=/x', writeSessionFile: '?path=/x' }

export interface Wish {
  /** The caller's credential; none if null */
  key: string | null
  /** Path parameters other than the world's own */
  params?: Record<string, string>
  headers?: Record<string, string>
  /** What the body has behind it */
  after?: string
}

/** Calls an operation as it should be called; answers status and error code. */
export async function callOperation(
  world: World,
  id: OperationId,
  { key, params = {}, headers = {}, after = '' }: Wish,
) {
  const endpoint: Endpoint = endpoints[id]
  const path = fillPath(endpoint.path, { ...world.params, ...params }) + (queries[id] ?? '')
  if (101 in endpoint.returns) return upgrade(world, path, key)
  const options: CallOptions = { key, headers }
  if (isBytesBody(endpoint.body)) options.body = Buffer.from('x')
  else if (endpoint.body) {
    if (bodies[id] === undefined) throw new Error(`test/support/operations.ts has no body for ${id} yet: add one`)
    options.body = JSON.stringify(bodies[id]) + after
  }
  const answer = await callApi(`${world.plane.url}${path}`, endpoint.method.toUpperCase(), options)
  return { status: answer.status, code: answer.body?.error?.code, body: JSON.stringify(answer.body) }
}

async function upgrade(world: World, path: string, key: string | null) {
  const credential = key ? `Authorization: Bearer ${key}\r\n` : ''
  const wish = `Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: ${'A'.repeat(22)}==\r\n`
  const head = `GET ${path} HTTP/1.1\r\nHost: x\r\n${credential}Connection: Upgrade\r\n${wish}\r\n`
  const answer = await sendRaw(Number(new URL(world.plane.url).port), head)
  const body = answer.split('\r\n\r\n')[1] ?? ''
  return { status: Number(answer.split(' ')[1]), code: /"code":"(\w+)"/.exec(body)?.[1], body }
}
