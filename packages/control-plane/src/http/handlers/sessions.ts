import { Readable } from 'node:stream'
import { vetUrl } from '../../delivery/index.ts'
import {
  cancelSession,
  createSession,
  findSession,
  getSession,
  listEgress,
  listSessions,
  readLogs,
  streamEvents,
} from '../../sessions/index.ts'
import type { Handlers } from '../handler.ts'
import { resumeAfter } from './resume.ts'

export const sessionHandlers = {
  async createSession({ body, caller }, { config, db, vault }) {
    const accepted = await createSession(db, caller.orgId, body, {
      vault,
      queueLimit: config.queueLimit,
      vetCallback: (url) => vetUrl(url, config.deliveryAllow),
    })
    return { status: 202, json: accepted }
  },

  async getSession({ params, caller }, { db }) {
    return { status: 200, json: await getSession(db, caller.orgId, params.sessionId) }
  },

  async listSessions({ query, caller }, { db }) {
    return { status: 200, json: await listSessions(db, caller.orgId, query) }
  },

  async cancelSession({ params, caller, log, signal }, services) {
    const { db, tunnels } = services
    const tellWorker = async (workerId: string, sessionId: string) => {
      const answer = await tunnels.request(workerId, {
        method: 'POST',
        path: `/sessions/${sessionId}/cancel`,
        body: '',
        // It answers once the session is settled: SIGTERM, some seconds, SIGKILL, the last report.
        timeoutMs: 30_000,
      })
      answer.stream.resume()
    }
    const ended = await cancelSession(db, { ...services, log, tellWorker, signal }, caller.orgId, params.sessionId)
    return { status: 200, json: ended }
  },

  async streamSessionEvents(input, services) {
    const session = await findSession(services.db, input.caller.orgId, input.params.sessionId)
    const after = resumeAfter(input)
    return { status: 200, events: streamEvents(services, session, { after, signal: input.signal }) }
  },

  async getSessionLogs({ params, query, caller }, { db, blobs }) {
    const session = await findSession(db, caller.orgId, params.sessionId)
    return {
      status: 200,
      bytes: Readable.from(readLogs(db, blobs, session, query.stream)),
      contentType: 'application/octet-stream',
    }
  },

  async listSessionEgress({ params, query, caller }, { db }) {
    const session = await findSession(db, caller.orgId, params.sessionId)
    return { status: 200, json: await listEgress(db, session, query) }
  },
} satisfies Partial<Handlers>
