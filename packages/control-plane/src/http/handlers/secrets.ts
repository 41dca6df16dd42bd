import { deleteSecret, listSecrets, putSecret } from '../../secrets/index.ts'
import type { Handlers } from '../handler.ts'

export const secretHandlers = {
  async putSecret({ params, body, caller }, { db, vault }) {
    const wish = { name: params.secretName, ...body }
    return { status: 200, json: await putSecret(db, vault, caller.orgId, wish) }
  },

  async listSecrets({ caller }, { db }) {
    return { status: 200, json: { secrets: await listSecrets(db, caller.orgId) } }
  },

  async deleteSecret({ params, caller }, { db }) {
    await deleteSecret(db, caller.orgId, params.secretName)
    return { status: 204, empty: true }
  },
} satisfies Partial<Handlers>
