import { execInSession, openTerminal, readSessionFile, writeSessionFile } from '../../fleet/index.ts'
import type { Handlers } from '../handler.ts'
import { assertWebSocket } from '../upgrade.ts'

/** What happens inside of running sessions. */
export const sessionIoHandlers = {
  async execInSession({ params, body, caller, signal }, services) {
    const options = { orgId: caller.orgId, sessionId: params.sessionId, command: body, signal }
    return { status: 200, events: await execInSession(services, options) }
  },

  async openTerminal({ params, query, caller, headers, signal, log }, services) {
    assertWebSocket(headers)
    const { rows, cols } = query
    const options = { orgId: caller.orgId, sessionId: params.sessionId, rows, cols, signal, log }
    return { status: 101, upgrade: await openTerminal(services, options) }
  },

  async readSessionFile({ params, query, caller, signal }, services) {
    const options = { orgId: caller.orgId, sessionId: params.sessionId, path: query.path, signal }
    const file = await readSessionFile(services, options)
    return { status: 200, ...file, contentType: 'application/octet-stream' }
  },

  async writeSessionFile({ params, query, body, caller, headers, signal }, services) {
    const announced = headers.get('content-length')
    await writeSessionFile(services, {
      ...{ orgId: caller.orgId, sessionId: params.sessionId, signal },
      ...query,
      content: body,
      length: announced === null ? undefined : Number(announced),
    })
    return { status: 204, empty: true }
  },
} satisfies Partial<Handlers>
