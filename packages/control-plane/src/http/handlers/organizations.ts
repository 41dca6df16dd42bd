import type {
  ApiKey as ApiKeyBody,
  NewApiKey as NewApiKeyBody,
  Organization as OrganizationBody,
  Scope,
} from '@paws/api'
import type { z } from 'zod'
import {
  type ApiKey,
  createKey,
  createOrganization,
  getOrganization,
  getWebhookSecret,
  listKeys,
  listOrganizations,
  type NewKey,
  type Organization,
  refuseOrganization,
  revokeKey,
  rotateKey,
  rotateWebhookSecret,
  updateOrganization,
  type WebhookSecret,
} from '../../organizations/index.ts'
import type { Handlers, KeyCaller } from '../handler.ts'
import { sealedColumns } from '../sealed-columns.ts'

export const organizationHandlers = {
  async whoami({ caller }, { db }) {
    const organization = await getOrganization(db, caller.orgId)
    return {
      status: 200,
      json: { organization: organizationBody(organization), keyId: caller.keyId, scopes: [...caller.scopes] },
    }
  },

  async createOrganization({ body }, { db, vault }) {
    const { organization, apiKey } = await createOrganization(db, vault, body.name)
    return { status: 201, json: { ...organizationBody(organization), apiKey: newKeyBody(apiKey) } }
  },

  async listOrganizations({ query }, { db }) {
    const { entries, nextCursor } = await listOrganizations(db, query)
    return { status: 200, json: { organizations: entries.map(organizationBody), nextCursor } }
  },

  async getOrganization({ params, caller }, { db }) {
    return { status: 200, json: organizationBody(await getOrganization(db, own(params.orgId, caller))) }
  },

  async updateOrganization({ params, body, caller }, { db }) {
    return { status: 200, json: organizationBody(await updateOrganization(db, own(params.orgId, caller), body)) }
  },

  async createApiKey({ params, body, caller }, { db, vault }) {
    const { name, scopes = [...caller.scopes], expiresAt } = body
    const wish = { orgId: own(params.orgId, caller), name, scopes, expiresAt: expiresAt ? new Date(expiresAt) : null }
    return { status: 201, json: newKeyBody(await createKey(db, vault, wish, caller.scopes)) }
  },

  async listApiKeys({ params, query, caller }, { db }) {
    const { entries, nextCursor } = await listKeys(db, own(params.orgId, caller), query)
    return { status: 200, json: { apiKeys: entries.map(keyBody), nextCursor } }
  },

  async revokeApiKey({ params, caller }, { db }) {
    await revokeKey(db, own(params.orgId, caller), params.keyId)
    return { status: 204, empty: true }
  },

  async rotateApiKey({ params, body, caller }, { db, vault }) {
    const wish = { orgId: own(params.orgId, caller), keyId: params.keyId, overlapMs: body.overlapMs }
    return { status: 201, json: newKeyBody(await rotateKey(db, vault, wish, caller.scopes)) }
  },

  async getWebhookSecret({ params, caller }, { db, vault }) {
    return { status: 200, json: secretBody(await getWebhookSecret(db, vault, own(params.orgId, caller))) }
  },

  async rotateWebhookSecret({ params, body, caller }, { db, vault }) {
    const secret = await rotateWebhookSecret(db, vault, own(params.orgId, caller), body.overlapMs)
    return { status: 200, json: secretBody(secret) }
  },

  async rotateDataKey({ params, caller }, { db, vault }) {
    return { status: 200, json: await vault.rotateDataKey(db, own(params.orgId, caller), sealedColumns) }
  },
} satisfies Partial<Handlers>

// Another organization's is not found, never forbidden: whether it exists is nobody else's business.
function own(orgId: string, caller: KeyCaller): string {
  return orgId === caller.orgId ? orgId : refuseOrganization(orgId)
}

function organizationBody({ id, name, operator, createdAt }: Organization): z.output<typeof OrganizationBody> {
  return { id, name, operator, createdAt: createdAt.toISOString() }
}

function keyBody(key: ApiKey): z.output<typeof ApiKeyBody> {
  const { id, name, prefix, lastFour, scopes, createdAt, expiresAt, lastUsedAt, revokedAt } = key
  return {
    id,
    name,
    prefix,
    lastFour,
    scopes: scopes as Scope[],
    createdAt: createdAt.toISOString(),
    ...(expiresAt && { expiresAt: expiresAt.toISOString() }),
    ...(lastUsedAt && { lastUsedAt: lastUsedAt.toISOString() }),
    ...(revokedAt && { revokedAt: revokedAt.toISOString() }),
  }
}

function newKeyBody(made: NewKey): z.output<typeof NewApiKeyBody> {
  return { ...keyBody(made), key: made.key }
}

function secretBody({ secret, previous }: WebhookSecret) {
  if (!previous) return { secret }
  return { secret, previous: { secret: previous.secret, validUntil: previous.validUntil.toISOString() } }
}
