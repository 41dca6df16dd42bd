import type { SessionClaim } from '@paws/api'
import pino from 'pino'
import type { z } from 'zod'
import type { Database } from '../database/index.ts'
import { type DeliveriesOptions, openDeliveries } from '../delivery/deliveries.ts'
import { claimSessions } from '../fleet/claim-sessions.ts'
import { newId } from '../ids.ts'
import { openJobs } from '../jobs/index.ts'
import { getSession } from '../sessions/index.ts'
import { openVault } from '../vault/index.ts'

export type TestClaim = z.input<typeof SessionClaim>

export const leaseMs = 150_000

/** What a worker that a test invents says of itself. */
export const workerState = (differing: Partial<ReturnType<typeof plainState>> = {}) => ({
  ...plainState(),
  ...differing,
})

const plainState = () => ({
  version: '0.0.0',
  isolation: 'process' as 'process' | 'qemu/tcg',
  limitations: [] as string[],
  maxSessions: 5,
  resources: { vcpus: 4, memoryMB: 8192, diskMB: 100_000 },
  snapshots: [] as string[],
})

export async function addOrganization(db: Database): Promise<string> {
  const id = newId('org_')
  await db.insertInto('organizations').values({ id, name: id }).execute()
  return id
}

/** A worker's row, without a credential that anybody knows. */
export async function addWorker(db: Database, state = workerState()): Promise<string> {
  const id = newId('wrk_')
  await db
    .insertInto('workers')
    .values({ id, name: id.replace('_', '-'), credentialHash: Buffer.from(id), state: JSON.stringify(state) })
    .execute()
  return id
}

/** A snapshot that is there for everybody. */
export async function addSnapshot(db: Database, id = 'minimal'): Promise<void> {
  await db
    .insertInto('snapshots')
    .values({ id, version: 1, digest: `sha256:${'a'.repeat(64)}`, sizeBytes: 1 })
    .execute()
}

/** Sessions as `createSession` gets them from the contract. */
export const request = (differing: object = {}) => ({
  snapshot: 'minimal',
  workload: { type: 'script' as const, script: 'echo hello' },
  resources: { vcpus: 2, memoryMB: 4096, diskMB: 10_240 },
  timeoutMs: 600_000,
  isolation: 'any' as const,
  network: { allowOut: [], credentials: {}, auditLog: false },
  ...differing,
})

/** Claims the next session for a worker. */
export async function claimOne(db: Database, workerId: string): Promise<TestClaim> {
  const { claimed } = await claimSessions(db, { workerId, limit: 1, leaseMs })
  if (!claimed[0]) throw new Error('There was nothing to claim')
  const { orgId, network, sealedSecrets, ...rest } = claimed[0]
  return { ...rest, network: JSON.parse(network) }
}

/** What else `createSession` asks for. */
export async function creating(db: Database) {
  const vault = await openVault(db, [Buffer.alloc(32, 1)])
  return { vault, queueLimit: 10_000, vetCallback: () => undefined }
}

/** What the end of a session needs, over a test's own database: real jobs, and callbacks that may go to this machine. */
export async function openAftermath(database: { url: string; db: Database }, options: Partial<DeliveriesOptions> = {}) {
  const { db, url } = database
  const log = pino({ level: 'silent' })
  const jobs = await openJobs(url, log)
  const deliveries = await openDeliveries({
    db,
    jobs,
    log,
    allow: ['127.0.0.0/8'],
    secrets: async () => [testSecret],
    body: async (orgId, sessionId) => JSON.stringify(await getSession(db, orgId, sessionId)),
    ...options,
  })
  return {
    jobs,
    deliveries,
    async close() {
      await deliveries.close()
      await jobs.close()
    },
  }
}

export const testSecret = `whsec_${Buffer.alloc(32, 7).toString('base64')}`
