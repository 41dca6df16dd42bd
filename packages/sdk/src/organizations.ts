import type { components } from './generated/api.ts'
import { dataOf, type Http, once, pages } from './http.ts'

export type Organization = components['schemas']['Organization']
export type ApiKey = components['schemas']['ApiKey']
export type NewApiKey = components['schemas']['NewApiKey']
export type Scope = components['schemas']['Scope']

export function organizationsOf(http: Http) {
  return {
    create: (name: string) => dataOf(http.POST('/v1/orgs', { params: { header: once() }, body: { name } })),
    list: () =>
      pages(
        (cursor) => dataOf(http.GET('/v1/orgs', { params: { query: { cursor, limit: 200 } } })),
        (page) => page.organizations,
      ),
    get: (orgId: string) => dataOf(http.GET('/v1/orgs/{orgId}', { params: { path: { orgId } } })),
    update: (orgId: string, body: { name?: string }) =>
      dataOf(http.PATCH('/v1/orgs/{orgId}', { params: { path: { orgId } }, body })),
    webhookSecret: (orgId: string) =>
      dataOf(http.GET('/v1/orgs/{orgId}/webhook-secret', { params: { path: { orgId } } })),
    rotateWebhookSecret: (orgId: string, options: { overlapMs?: number } = {}) =>
      dataOf(
        http.POST('/v1/orgs/{orgId}/webhook-secret/rotate', {
          params: { path: { orgId }, header: once() },
          body: options,
        }),
      ),
    /** A new key for what the organization has sealed; the old one is deleted */
    rotateDataKey: (orgId: string) =>
      dataOf(http.POST('/v1/orgs/{orgId}/data-key/rotate', { params: { path: { orgId }, header: once() } })),
  }
}

export function keysOf(http: Http) {
  const path = (orgId: string, keyId: string) => ({ path: { orgId, keyId } })
  return {
    /** The only answer that ever holds the whole key */
    create: (orgId: string, body: { name: string; scopes?: Scope[]; expiresAt?: string }) =>
      dataOf(http.POST('/v1/orgs/{orgId}/api-keys', { params: { path: { orgId }, header: once() }, body })),
    list: (orgId: string) =>
      pages(
        (cursor) =>
          dataOf(http.GET('/v1/orgs/{orgId}/api-keys', { params: { path: { orgId }, query: { cursor, limit: 200 } } })),
        (page) => page.apiKeys,
      ),
    async revoke(orgId: string, keyId: string): Promise<void> {
      await http.DELETE('/v1/orgs/{orgId}/api-keys/{keyId}', { params: path(orgId, keyId) })
    },
    /** A new key in the place of an old one, which works on for `overlapMs` (a day) */
    rotate: (orgId: string, keyId: string, options: { overlapMs?: number } = {}) =>
      dataOf(
        http.POST('/v1/orgs/{orgId}/api-keys/{keyId}/rotate', {
          params: { ...path(orgId, keyId), header: once() },
          body: options,
        }),
      ),
  }
}
