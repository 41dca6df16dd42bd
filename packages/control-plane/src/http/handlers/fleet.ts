import {
  createEnrolmentToken,
  drainWorker,
  getFleet,
  getWorker,
  listWorkers,
  removeWorker,
  undrainWorker,
} from '../../fleet/index.ts'
import type { Handlers } from '../handler.ts'

export const fleetHandlers = {
  async getFleet(_input, { db }) {
    return { status: 200, json: await getFleet(db) }
  },

  async listWorkers(_input, { db }) {
    return { status: 200, json: { workers: await listWorkers(db) } }
  },

  async getWorker({ params }, { db }) {
    return { status: 200, json: await getWorker(db, params.name) }
  },

  async drainWorker({ params }, { db }) {
    return { status: 200, json: await drainWorker(db, params.name) }
  },

  async undrainWorker({ params }, { db }) {
    return { status: 200, json: await undrainWorker(db, params.name) }
  },

  async removeWorker({ params }, { db }) {
    await removeWorker(db, params.name)
    return { status: 204, empty: true }
  },

  async createEnrolmentToken({ body }, services) {
    return { status: 201, json: await createEnrolmentToken(services, body.expiresInMs) }
  },
} satisfies Partial<Handlers>
