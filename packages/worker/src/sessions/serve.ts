import type { IncomingHttpHeaders } from 'node:http2'
import type { Logger } from 'pino'
import type { TunnelServer, TunnelStream } from '../link/tunnel.ts'
import { exec } from './exec.ts'
import { readFile, writeFile } from './files.ts'
import type { Sessions } from './index.ts'
import { errorOf, refuse, respondJson, type SessionRequest } from './request.ts'
import { openTerminal } from './terminal.ts'

const actions: Record<string, (request: SessionRequest) => Promise<void>> = {
  'POST exec': exec,
  'POST terminal': openTerminal,
  'GET files': readFile,
  'PUT files': writeFile,
}

/** Answers what the control plane asks about sessions that run here. See the API's `tunnel.ts` for the requests. */
export function serveSessions(options: { sessions: Sessions; spoolDir: string; log: Logger }): TunnelServer {
  const { log } = options
  return (stream, headers) => {
    answer(stream, headers, options).catch((error: unknown) => {
      const told = errorOf(error)
      if (told.code === 'INTERNAL_ERROR') log.error({ err: error, path: headers[':path'] }, 'A tunnel request failed')
      refuse(stream, told)
    })
  }
}

async function answer(
  stream: TunnelStream,
  headers: IncomingHttpHeaders,
  { sessions, spoolDir }: { sessions: Sessions; spoolDir: string },
) {
  const { pathname, searchParams: query } = new URL(headers[':path'] ?? '/', 'http://worker')
  const [, room, sessionId = '', verb] = pathname.split('/')
  const held = room === 'sessions' ? await sessions.find(sessionId) : undefined
  if (!held) return refuse(stream, { code: 'NOT_RUNNING', message: 'The session does not run here' })
  const { run } = held
  if (headers[':method'] === 'POST' && verb === 'cancel') {
    run.end('cancelled')
    const status = await held.settled
    return respondJson(stream, 200, { status })
  }
  const action = actions[`${headers[':method']} ${verb}`]
  if (!action) return refuse(stream, { code: 'NOT_FOUND', message: `No such request: ${pathname}` })
  const inside = await run.inside
  if (!inside) return refuse(stream, { code: 'NOT_RUNNING', message: 'The session has no sandbox' })
  await action({ ...inside, stream, headers, query, spoolDir })
}
