import { pathId, Timestamp } from './common.ts'
import { endpoint } from './endpoint.ts'
import { AllowedHosts } from './network.ts'
import { Resources } from './sessions.ts'
import { z } from './zod.ts'

const fields = {
  template: z
    .string()
    .min(1)
    .max(100)
    .optional()
    .openapi({ description: 'Id of the template to start from; `minimal` unless given', example: 'node' }),
  setup: z.string().min(1).max(262_144).openapi({
    description: 'Script that is run as root in the image, by its `#!` line or bash',
    example: 'npm install -g typescript',
  }),
  requiredDomains: AllowedHosts,
  resources: Resources.prefault({}).openapi({ description: 'Of the sandbox that the setup runs in' }),
  isolation: z
    .enum(['any', 'vm'])
    .default('any')
    .openapi({ description: '`vm`: sessions of this snapshot that are made from then on run in microVMs only' }),
}

const configId = z
  .string()
  .regex(/^[a-z0-9][a-z0-9-]{0,62}$/, 'Must be lower-case letters, digits and "-", at most 63, not beginning with "-"')

/** How an organization's own snapshot is made. */
export const SnapshotConfig = z
  .object({
    id: z.string(),
    template: z.string(),
    setup: z.string(),
    requiredDomains: z.array(z.string()),
    resources: z.object({ vcpus: z.int(), memoryMB: z.int(), diskMB: z.int() }),
    isolation: z.enum(['any', 'vm']),
    createdAt: Timestamp,
    updatedAt: Timestamp,
  })
  .openapi('SnapshotConfig')

const configParams = z.object({ snapshotId: pathId('Id of the config, and of the snapshot built from it') })

export const createSnapshotConfig = endpoint({
  method: 'post',
  path: '/v1/snapshot-configs',
  access: 'snapshots:write',
  tag: 'Snapshots',
  summary: 'Say how a snapshot of your own is made',
  description: 'Builds nothing yet: that happens when it is asked for, or when a session first needs it.',
  body: z.strictObject({ id: configId, ...fields }),
  idempotent: true,
  returns: { 201: SnapshotConfig },
  errors: ['CONFLICT', 'SNAPSHOT_NOT_FOUND'],
})

export const listSnapshotConfigs = endpoint({
  method: 'get',
  path: '/v1/snapshot-configs',
  access: 'snapshots:read',
  tag: 'Snapshots',
  summary: 'List the configs, all of them, by id',
  returns: { 200: z.object({ configs: z.array(SnapshotConfig) }) },
  errors: [],
})

export const getSnapshotConfig = endpoint({
  method: 'get',
  path: '/v1/snapshot-configs/{snapshotId}',
  access: 'snapshots:read',
  tag: 'Snapshots',
  summary: 'Get a config',
  params: configParams,
  returns: { 200: SnapshotConfig },
  errors: ['SNAPSHOT_NOT_FOUND'],
})

export const updateSnapshotConfig = endpoint({
  method: 'put',
  path: '/v1/snapshot-configs/{snapshotId}',
  access: 'snapshots:write',
  tag: 'Snapshots',
  summary: 'Replace a config',
  description:
    'What was built before serves until it is built again; a build that is queued or running is of the config as it was.',
  params: configParams,
  body: z.strictObject({ id: configId.optional(), ...fields }),
  returns: { 200: SnapshotConfig },
  errors: ['SNAPSHOT_NOT_FOUND', 'CONFLICT'],
})

export const deleteSnapshotConfig = endpoint({
  method: 'delete',
  path: '/v1/snapshot-configs/{snapshotId}',
  access: 'snapshots:write',
  tag: 'Snapshots',
  summary: 'Delete a config and its snapshot',
  description: 'Sessions that run go on; those that wait for it fail, and its unfinished build is given up.',
  params: configParams,
  returns: { 204: { kind: 'empty', description: 'Deleted' } },
  errors: ['SNAPSHOT_NOT_FOUND'],
})
