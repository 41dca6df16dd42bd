import { startTestControlPlane, type TestControlPlane, type TestControlPlaneOptions } from './control-plane.ts'

/** A control plane with one of everything, all of it the first organization's, and a second organization beside it. */
export interface World {
  plane: TestControlPlane
  other: { orgId: string; key: string }
  worker: { name: string; credential: string }
  /** A fresh enrolment token */
  enrolmentToken(): Promise<string>
  /** Path parameters that name the first organization's objects */
  params: Record<string, string>
  close(): Promise<void>
}

/** What a worker that a test plays says of itself. */
export const workerState = {
  version: '0.0.0',
  isolation: 'process',
  limitations: [],
  maxSessions: 5,
  resources: { vcpus: 8, memoryMB: 16_384, diskMB: 100_000 },
  snapshots: [],
}

export async function openWorld(options: TestControlPlaneOptions = {}): Promise<World> {
  const plane = await startTestControlPlane(options)
  const { db } = plane.database
  const other = await plane.otherOrganization()

  async function enrolmentToken() {
    const { body } = await plane.call<{ token: string }>('POST', '/v1/fleet/enrolment-tokens', { body: {} })
    return body.token
  }
  const worker = await plane.enrolWorker(workerState, 'caller')
  const spare = await plane.enrolWorker(workerState, 'spare')

  const digest = `sha256:${'a'.repeat(64)}`
  const shared = { version: 1, digest, sizeBytes: 1 }
  await db
    .insertInto('snapshots')
    .values([
      { id: 'minimal', orgId: null, ...shared },
      { id: 'private', orgId: plane.orgId, ...shared },
    ])
    .execute()
  const setup = { template: 'minimal', setup: 'true', requiredDomains: [], vcpus: 2, memoryMb: 4096, diskMb: 10_240 }
  await db
    .insertInto('snapshotConfigs')
    .values({ orgId: plane.orgId, id: 'private', ...setup })
    .execute()
  const jobId = 'build-0198c5f2a1b77d3c9e510198c5f2a1b7'
  await db
    .insertInto('builds')
    .values({ jobId, orgId: plane.orgId, snapshotId: 'private', baseId: 'minimal', config: '{}', status: 'queued' })
    .execute()
  const workload = { type: 'script', script: 'echo hello' }
  const session = await plane.call<{ sessionId: string }>('POST', '/v1/sessions', {
    body: { snapshot: 'minimal', workload },
  })
  const apiKey = await plane.call<{ id: string }>('POST', `/v1/orgs/${plane.orgId}/api-keys`, {
    body: { name: 'spare' },
  })
  const secretName = 'world-secret'
  await plane.call('PUT', `/v1/secrets/${secretName}`, {
    body: { value: 'the value of it', hosts: ['api.example.com', '*.example.org'] },
  })
  return {
    plane,
    other,
    worker,
    enrolmentToken,
    params: {
      sessionId: session.body.sessionId,
      orgId: plane.orgId,
      keyId: apiKey.body.id,
      snapshotId: 'private',
      secretName,
      jobId,
      name: spare.name,
      digest,
      file: 'manifest.json',
    },
    close: () => plane.close(),
  }
}

/** The path of an operation with its parameters filled in. */
export function fillPath(path: string, params: Record<string, string>): string {
  return path.replaceAll(/\{(\w+)\}/g, (_, name: string) => {
    const value = params[name]
    if (value === undefined) throw new Error(`test/support/world.ts has no "${name}" yet: add one`)
    return encodeURIComponent(value)
  })
}
