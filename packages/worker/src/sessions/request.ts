import type { IncomingHttpHeaders } from 'node:http2'
import type { TunnelError } from '@paws/api'
import type { TunnelStream } from '../link/tunnel.ts'
import { FileRefused, SandboxLost } from '../sandbox/driver.ts'
import { GuestRefused } from '../sandbox/guest/agent.ts'
import type { Inside } from './run.ts'

/** One request that came through the tunnel, about a session that runs here. */
export interface SessionRequest extends Inside {
  stream: TunnelStream
  headers: IncomingHttpHeaders
  query: URLSearchParams
  /** For what must lie on this worker's disk for a moment */
  spoolDir: string
}

export function errorOf(error: unknown): TunnelError {
  if (error instanceof FileRefused) {
    return { code: error.reason === 'not-found' ? 'FILE_NOT_FOUND' : 'FILE_REFUSED', message: error.message }
  }
  if (error instanceof SandboxLost) return { code: 'SANDBOX_LOST', message: error.message }
  if (error instanceof GuestRefused) return { code: 'REFUSED', message: error.message }
  return { code: 'INTERNAL_ERROR', message: 'The worker failed. Its log says why.' }
}

const statuses = {
  NOT_RUNNING: 409,
  NOT_FOUND: 404,
  FILE_NOT_FOUND: 404,
  FILE_REFUSED: 422,
  REFUSED: 422,
  SANDBOX_LOST: 410,
  INTERNAL_ERROR: 500,
} satisfies Record<TunnelError['code'], number>

export function refuse(stream: TunnelStream, error: TunnelError) {
  if (stream.destroyed) return
  // Half an answer can't become a refusal: the other end sees that it breaks off.
  if (stream.headersSent) return stream.close(2)
  respondJson(stream, statuses[error.code], error)
}

export function respondJson(stream: TunnelStream, status: number, body: unknown) {
  if (stream.destroyed) return
  stream.respond({ ':status': status, 'content-type': 'application/json' })
  stream.end(JSON.stringify(body))
  // What the other end still sends is of no interest.
  stream.resume()
}
