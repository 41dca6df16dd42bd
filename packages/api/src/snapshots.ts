import { pathId, resumeQuery, Timestamp } from './common.ts'
import { endpoint } from './endpoint.ts'
import { buildStatuses } from './lifecycles.ts'
import { Isolation } from './sessions.ts'
import { z } from './zod.ts'

export const Template = z.object({ id: z.string(), description: z.string() }).openapi('Template')

export const Snapshot = z
  .object({
    id: z.string(),
    status: z
      .enum(['missing', 'building', 'ready', 'failed'])
      .openapi({ description: '`ready` while a good version serves, even if a later build failed' }),
    version: z.int().optional().openapi({ description: 'Counts good builds from 1' }),
    digest: z.string().optional().openapi({ example: 'sha256:2c26b46b68ffc68f…' }),
    sizeBytes: z.int().optional(),
    isolation: z.array(Isolation).openapi({ description: 'Kinds of sandbox that can start it' }),
    workers: z.array(z.string()).openapi({ description: 'Workers that hold it unpacked' }),
    builtAt: Timestamp.optional(),
  })
  .openapi('Snapshot')

export const Build = z
  .object({
    snapshotId: z.string(),
    jobId: z.string().openapi({ example: 'build-0198c5f2a1b7' }),
    status: z.enum(buildStatuses),
    progress: z.number().min(0).max(1),
    step: z.string().optional().openapi({ description: 'What it is doing now' }),
    error: z.string().optional(),
    log: z.string().openapi({ description: 'The last 256 KiB' }),
    digest: z.string().optional(),
    worker: z.string().optional(),
    createdAt: Timestamp,
    startedAt: Timestamp.optional(),
    completedAt: Timestamp.optional(),
  })
  .openapi('Build')

/** Events of a build's stream. */
export const buildEvents = {
  progress: z.object({ status: z.enum(buildStatuses), progress: z.number(), step: z.string().optional() }),
  log: z.object({ text: z.string() }),
  done: Build.omit({ log: true }),
}

const snapshotParams = z.object({ snapshotId: pathId('Id of a snapshot or template') })
const buildParams = snapshotParams.extend({ jobId: pathId('Id of the build') })

export const listTemplates = endpoint({
  method: 'get',
  path: '/v1/templates',
  access: 'snapshots:read',
  tag: 'Snapshots',
  summary: 'List the built-in templates',
  returns: { 200: z.object({ templates: z.array(Template) }) },
  errors: [],
})

export const listSnapshots = endpoint({
  method: 'get',
  path: '/v1/snapshots',
  access: 'snapshots:read',
  tag: 'Snapshots',
  summary: 'List the snapshots that the organization can use',
  description: 'All of them: there are as many as templates and configs.',
  returns: { 200: z.object({ snapshots: z.array(Snapshot) }) },
  errors: [],
})

export const getSnapshot = endpoint({
  method: 'get',
  path: '/v1/snapshots/{snapshotId}',
  access: 'snapshots:read',
  tag: 'Snapshots',
  summary: 'Get a snapshot',
  params: snapshotParams,
  returns: { 200: Snapshot },
  errors: ['SNAPSHOT_NOT_FOUND'],
})

export const buildSnapshot = endpoint({
  method: 'post',
  path: '/v1/snapshots/{snapshotId}/build',
  access: 'snapshots:write',
  tag: 'Snapshots',
  summary: 'Build a snapshot',
  description:
    'While a build of it is queued or running, that one is answered. The last good version serves until the new one is ready. Built-in templates are shared: anybody may ask for one that is missing, only the operator for one that is ready.',
  params: snapshotParams,
  idempotent: true,
  returns: { 202: z.object({ snapshotId: z.string(), status: z.literal('building'), jobId: z.string() }) },
  errors: ['SNAPSHOT_NOT_FOUND'],
})

export const getBuild = endpoint({
  method: 'get',
  path: '/v1/snapshots/{snapshotId}/builds/{jobId}',
  access: 'snapshots:read',
  tag: 'Snapshots',
  summary: 'Get a build with its progress and log',
  params: buildParams,
  returns: { 200: Build },
  errors: ['SNAPSHOT_NOT_FOUND', 'BUILD_NOT_FOUND'],
})

export const streamBuildEvents = endpoint({
  method: 'get',
  path: '/v1/snapshots/{snapshotId}/builds/{jobId}/events',
  access: 'snapshots:read',
  tag: 'Snapshots',
  summary: "Stream a build's progress and log",
  params: buildParams,
  query: z.object(resumeQuery),
  returns: {
    200: {
      kind: 'events',
      description: 'The events so far, then each as it happens; ends after `done`',
      events: buildEvents,
    },
  },
  errors: ['SNAPSHOT_NOT_FOUND', 'BUILD_NOT_FOUND'],
})
