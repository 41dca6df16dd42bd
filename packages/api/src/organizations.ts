import { nextCursor, pageQuery, pathId, Timestamp } from './common.ts'
import { endpoint } from './endpoint.ts'
import { allScopes, type Scope } from './scopes.ts'
import { z } from './zod.ts'

export const ScopeName = z.enum(allScopes as [Scope, ...Scope[]]).openapi('Scope')

const name = z.string().trim().min(1).max(100)

export const Organization = z
  .object({
    id: z.string().openapi({ example: 'org_0198c5f2a1b77d3c9e51' }),
    name: z.string(),
    operator: z.boolean().openapi({ description: 'Whether it is the first one, which owns the fleet' }),
    createdAt: Timestamp,
  })
  .openapi('Organization')

export const ApiKey = z
  .object({
    id: z.string().openapi({ example: 'key_0198c5f2a1b77d3c9e51' }),
    name: z.string(),
    prefix: z.string().openapi({ example: 'sk_live_Ab3d' }),
    lastFour: z.string(),
    scopes: z.array(ScopeName),
    createdAt: Timestamp,
    expiresAt: Timestamp.optional(),
    lastUsedAt: Timestamp.optional().openapi({ description: 'To within a minute' }),
    revokedAt: Timestamp.optional(),
  })
  .openapi('ApiKey')

/** The only answer that ever holds the whole key. */
export const NewApiKey = ApiKey.extend({
  key: z.string().openapi({
    description: 'The whole key: `sk_live_`, 30 base62 characters and a 6-character checksum. Shown once',
    example: '***',
  }),
}).openapi('NewApiKey')

const orgParams = z.object({ orgId: pathId('Id of the organization') })
const keyParams = orgParams.extend({ keyId: pathId('Id of the API key') })

export const whoami = endpoint({
  method: 'get',
  path: '/v1/whoami',
  access: 'key',
  tag: 'Organizations',
  summary: 'Say whose key this is and what it may do',
  returns: { 200: z.object({ organization: Organization, keyId: z.string(), scopes: z.array(ScopeName) }) },
  errors: [],
})

export const createOrganization = endpoint({
  method: 'post',
  path: '/v1/orgs',
  access: 'fleet:admin',
  tag: 'Organizations',
  summary: 'Create an organization with a first API key',
  body: z.strictObject({ name }),
  idempotent: true,
  returns: { 201: Organization.extend({ apiKey: NewApiKey }) },
  errors: [],
})

export const listOrganizations = endpoint({
  method: 'get',
  path: '/v1/orgs',
  access: 'fleet:admin',
  tag: 'Organizations',
  summary: 'List all organizations, newest first',
  query: z.object(pageQuery),
  returns: { 200: z.object({ organizations: z.array(Organization), nextCursor }) },
  errors: [],
})

export const getOrganization = endpoint({
  method: 'get',
  path: '/v1/orgs/{orgId}',
  access: 'organizations:read',
  tag: 'Organizations',
  summary: "Get the key's own organization",
  params: orgParams,
  returns: { 200: Organization },
  errors: ['ORGANIZATION_NOT_FOUND'],
})

export const updateOrganization = endpoint({
  method: 'patch',
  path: '/v1/orgs/{orgId}',
  access: 'organizations:write',
  tag: 'Organizations',
  summary: "Rename the key's own organization",
  params: orgParams,
  body: z.strictObject({ name: name.optional() }),
  returns: { 200: Organization },
  errors: ['ORGANIZATION_NOT_FOUND'],
})

export const createApiKey = endpoint({
  method: 'post',
  path: '/v1/orgs/{orgId}/api-keys',
  access: 'organizations:write',
  tag: 'Organizations',
  summary: 'Make an API key',
  description: 'Its scopes are those asked for, by default the maker’s own; never more than the maker has.',
  params: orgParams,
  body: z.strictObject({ name, scopes: z.array(ScopeName).min(1).optional(), expiresAt: Timestamp.optional() }),
  idempotent: true,
  returns: { 201: NewApiKey },
  errors: ['ORGANIZATION_NOT_FOUND'],
})

export const listApiKeys = endpoint({
  method: 'get',
  path: '/v1/orgs/{orgId}/api-keys',
  access: 'organizations:read',
  tag: 'Organizations',
  summary: 'List API keys, newest first, revoked ones too',
  params: orgParams,
  query: z.object(pageQuery),
  returns: { 200: z.object({ apiKeys: z.array(ApiKey), nextCursor }) },
  errors: ['ORGANIZATION_NOT_FOUND'],
})

export const revokeApiKey = endpoint({
  method: 'delete',
  path: '/v1/orgs/{orgId}/api-keys/{keyId}',
  access: 'organizations:write',
  tag: 'Organizations',
  summary: 'Revoke an API key at once, on every control plane',
  params: keyParams,
  returns: { 204: { kind: 'empty', description: 'Revoked, now or before' } },
  errors: ['ORGANIZATION_NOT_FOUND', 'API_KEY_NOT_FOUND'],
})

export const rotateApiKey = endpoint({
  method: 'post',
  path: '/v1/orgs/{orgId}/api-keys/{keyId}/rotate',
  access: 'organizations:write',
  tag: 'Organizations',
  summary: 'Replace an API key; the old one works on for a while',
  description: 'The new one has the scopes of the old, and who asks must have each of them.',
  params: keyParams,
  body: z.strictObject({
    overlapMs: z
      .int()
      .min(0)
      .max(30 * 86_400_000)
      .default(86_400_000)
      .openapi({ description: 'How long the old key still works; default a day' }),
  }),
  idempotent: true,
  returns: { 201: NewApiKey },
  errors: ['ORGANIZATION_NOT_FOUND', 'API_KEY_NOT_FOUND', 'INVALID_STATE'],
})

export const WebhookSecret = z
  .object({
    secret: z
      .string()
      .openapi({ description: 'Signs outgoing callbacks, `whsec_` and base64 (Standard Webhooks)', example: '***' }),
    previous: z
      .object({ secret: z.string().openapi({ example: '***' }), validUntil: Timestamp })
      .optional()
      .openapi({ description: 'The one before, which signs beside the new one until then' }),
  })
  .openapi('WebhookSecret')

export const getWebhookSecret = endpoint({
  method: 'get',
  path: '/v1/orgs/{orgId}/webhook-secret',
  access: 'organizations:write',
  tag: 'Organizations',
  summary: 'Get the secret that signs callbacks',
  params: orgParams,
  returns: { 200: WebhookSecret },
  errors: ['ORGANIZATION_NOT_FOUND'],
})

export const rotateWebhookSecret = endpoint({
  method: 'post',
  path: '/v1/orgs/{orgId}/webhook-secret/rotate',
  access: 'organizations:write',
  tag: 'Organizations',
  summary: 'Replace the secret that signs callbacks; the old one signs beside it for a while',
  params: orgParams,
  body: z.strictObject({
    overlapMs: z
      .int()
      .min(0)
      .max(30 * 86_400_000)
      .default(86_400_000),
  }),
  idempotent: true,
  returns: { 200: WebhookSecret },
  errors: ['ORGANIZATION_NOT_FOUND'],
})

export const rotateDataKey = endpoint({
  method: 'post',
  path: '/v1/orgs/{orgId}/data-key/rotate',
  access: 'organizations:write',
  tag: 'Organizations',
  summary: "Replace the key that seals the organization's secrets, and seal them again with the new one",
  description: 'What is sealed stays readable all the while. The old key is deleted once nothing is sealed with it.',
  params: orgParams,
  idempotent: true,
  returns: {
    200: z
      .object({
        version: z.int().openapi({ description: 'Of the new key; they count from 1' }),
        resealed: z.int().openapi({ description: 'How many secrets were sealed again' }),
      })
      .openapi('DataKeyRotation'),
  },
  errors: ['ORGANIZATION_NOT_FOUND'],
})
