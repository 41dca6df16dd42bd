import { pathId, Timestamp } from './common.ts'
import { endpoint } from './endpoint.ts'
import { HostPattern, Line } from './network.ts'
import { z } from './zod.ts'

/** A stored secret: its value is never read back. */
export const Secret = z
  .object({
    name: z.string(),
    value: z.literal('***'),
    hosts: z
      .array(z.string())
      .optional()
      .openapi({ description: 'The only hosts that sessions may name it for; absent: any' }),
    createdAt: Timestamp,
    updatedAt: Timestamp,
  })
  .openapi('Secret')

const PutSecret = z.strictObject({
  value: Line,
  hosts: z
    .array(HostPattern)
    .min(1)
    .max(50)
    .nullable()
    .optional()
    .openapi({
      description:
        'The only hosts that sessions may name it for: names, or `*.example.com` for sub-domains only. Absent: those ' +
        'that it has been bound to, any if to none. `null`: any, whatever it has been bound to',
      example: ['api.example.com'],
    }),
})

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
    'Sessions name it in `network.credentials` as `{"secret":"NAME"}`. One that is stored already keeps the value it ' +
    'was created with. Say `hosts`: a secret that is bound to none can be named for any host, so whoever has a key with ' +
    '`sessions:write` could send it to a server of their own. A new value keeps the hosts of the one before: only ' +
    '`"hosts":null` lets it go to any again. Deleting the secret forgets them.',
  params: secretParams,
  body: PutSecret,
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
