import { pathId, Timestamp } from './common.ts'
import { endpoint } from './endpoint.ts'
import { Line } from './network.ts'
import { z } from './zod.ts'

/** A stored secret: its value is never read back. */
export const Secret = z
  .object({ name: z.string(), value: z.literal('***'), createdAt: Timestamp, updatedAt: Timestamp })
  .openapi('Secret')

const secretParams = z.object({
  secretName: pathId('Name of the secret: a letter, then letters, digits, "_", "." or "-"'),
})

export const putSecret = endpoint({
  method: 'put',
  path: '/v1/secrets/{secretName}',
  access: 'secrets:write',
  tag: 'Secrets',
  summary: 'Store a secret, or replace its value',
  description:
    'Sessions name it in `network.credentials` as `{"secret":"NAME"}`. One that is stored already keeps the value it was created with.',
  params: secretParams,
  body: z.strictObject({ value: Line }),
  returns: { 200: Secret },
  errors: ['SECRET_NOT_FOUND'],
})

export const listSecrets = endpoint({
  method: 'get',
  path: '/v1/secrets',
  access: 'secrets:read',
  tag: 'Secrets',
  summary: 'List the names of the stored secrets',
  description: 'All of them, by name. No value is ever answered.',
  returns: { 200: z.object({ secrets: z.array(Secret) }) },
  errors: [],
})

export const deleteSecret = endpoint({
  method: 'delete',
  path: '/v1/secrets/{secretName}',
  access: 'secrets:write',
  tag: 'Secrets',
  summary: 'Delete a secret',
  description: 'Sessions that were created with it keep their sealed copy until they end.',
  params: secretParams,
  returns: { 204: { kind: 'empty', description: 'Deleted' } },
  errors: ['SECRET_NOT_FOUND'],
})
