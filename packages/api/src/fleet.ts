import { pathId, Timestamp } from './common.ts'
import { endpoint } from './endpoint.ts'
import { workerStatuses } from './lifecycles.ts'
import { Isolation } from './sessions.ts'
import { z } from './zod.ts'

export const Fleet = z
  .object({
    totalWorkers: z.int(),
    healthyWorkers: z.int(),
    totalCapacity: z.int().openapi({ description: 'Sessions that all workers together can run at once' }),
    usedCapacity: z.int(),
    queuedSessions: z.int(),
    activeDaemons: z.int(),
    activeSessions: z.int(),
  })
  .openapi('Fleet')

export const Worker = z
  .object({
    name: z.string(),
    status: z.enum(workerStatuses).openapi({ description: '`unhealthy`: not heard of for 30 s' }),
    capacity: z.object({ max: z.int(), running: z.int() }),
    resources: z.object({ vcpus: z.int(), memoryMB: z.int(), diskMB: z.int() }),
    isolation: Isolation,
    limitations: z.array(z.string()).openapi({ description: 'What its host can’t enforce' }),
    snapshots: z.array(z.string()).openapi({ description: 'Digests of the snapshots it holds unpacked' }),
    version: z.string(),
    lastSeenAt: Timestamp,
  })
  .openapi('Worker')

const workerParams = z.object({ name: pathId('Name of the worker') })

export const getFleet = endpoint({
  method: 'get',
  path: '/v1/fleet',
  access: 'fleet:admin',
  tag: 'Fleet',
  summary: 'Count workers, capacity and sessions of the whole fleet',
  returns: { 200: Fleet },
  errors: [],
})

export const listWorkers = endpoint({
  method: 'get',
  path: '/v1/fleet/workers',
  access: 'fleet:admin',
  tag: 'Fleet',
  summary: 'List the workers by name',
  returns: { 200: z.object({ workers: z.array(Worker) }) },
  errors: [],
})

export const getWorker = endpoint({
  method: 'get',
  path: '/v1/fleet/workers/{name}',
  access: 'fleet:admin',
  tag: 'Fleet',
  summary: 'Get a worker',
  params: workerParams,
  returns: { 200: Worker },
  errors: ['WORKER_NOT_FOUND'],
})

export const drainWorker = endpoint({
  method: 'post',
  path: '/v1/fleet/workers/{name}/drain',
  access: 'fleet:admin',
  tag: 'Fleet',
  summary: 'Give a worker no new sessions; what runs there ends by itself',
  params: workerParams,
  returns: { 200: Worker },
  errors: ['WORKER_NOT_FOUND', 'INVALID_STATE'],
})

export const undrainWorker = endpoint({
  method: 'post',
  path: '/v1/fleet/workers/{name}/undrain',
  access: 'fleet:admin',
  tag: 'Fleet',
  summary: 'Give a draining worker new sessions again',
  params: workerParams,
  returns: { 200: Worker },
  errors: ['WORKER_NOT_FOUND', 'INVALID_STATE'],
})

export const removeWorker = endpoint({
  method: 'delete',
  path: '/v1/fleet/workers/{name}',
  access: 'fleet:admin',
  tag: 'Fleet',
  summary: 'Remove a worker: its credential ends at once',
  description: 'What still runs there fails once its lease has ended; drain it first to wait.',
  params: workerParams,
  returns: { 204: { kind: 'empty', description: 'Removed' } },
  errors: ['WORKER_NOT_FOUND'],
})

export const createEnrolmentToken = endpoint({
  method: 'post',
  path: '/v1/fleet/enrolment-tokens',
  access: 'fleet:admin',
  tag: 'Fleet',
  summary: 'Make a token that enrols one worker, once',
  body: z.strictObject({
    expiresInMs: z
      .int()
      .min(1000)
      .max(7 * 86_400_000)
      .default(3_600_000)
      .openapi({ description: 'Default one hour' }),
  }),
  idempotent: true,
  returns: {
    201: z.object({ token: z.string().openapi({ example: '***' }), expiresAt: Timestamp }).openapi('EnrolmentToken'),
  },
  errors: [],
})
