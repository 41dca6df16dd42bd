export { type ApiKey, createKey, listKeys, type NewKey, revokeKey, rotateKey } from './api-keys.ts'
export { ensureFirstOrganization } from './bootstrap.ts'
export { type Keys, openKeys } from './keys.ts'
export {
  createOrganization,
  getOrganization,
  listOrganizations,
  type Organization,
  refuseOrganization,
  updateOrganization,
} from './organizations.ts'
export {
  getWebhookSecret,
  rotateWebhookSecret,
  sealedWebhookSecrets,
  signingSecrets,
  type WebhookSecret,
} from './webhook-secret.ts'
