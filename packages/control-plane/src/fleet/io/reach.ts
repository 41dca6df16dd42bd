import { sessionCan, type TunnelError } from '@paws/api'
import type { Database } from '../../database/index.ts'
import { ApiError, invalidState } from '../../errors.ts'
import { findSession } from '../../sessions/index.ts'
import type { TunnelRequest, TunnelResponse, Tunnels } from '../tunnels.ts'

export interface IoServices {
  db: Database
  tunnels: Tunnels
}

/** One request about what is inside a running session. */
export interface IoRequest extends Omit<TunnelRequest, 'path'> {
  orgId: string
  sessionId: string
  /** What is done, by the name that the lifecycle has for it */
  action: 'exec' | 'terminal' | 'files'
  /** Below the session's path at the worker, with its query */
  path: string
}

/** A worker answers once the sandbox has started, for which a snapshot may have to be fetched first. */
const startMs = 120_000
const maxErrorBytes = 64 * 1024

/**
 * Asks the worker on which a session runs.
 *
 * @throws SESSION_NOT_FOUND; INVALID_STATE unless it runs; WORKER_UNREACHABLE; what the worker refuses
 */
export async function askSession({ db, tunnels }: IoServices, request: IoRequest): Promise<TunnelResponse> {
  const { orgId, sessionId, action, path, ...options } = request
  const find = async () => {
    const { status, workerId } = await findSession(db, orgId, sessionId)
    if (sessionCan[action].some((allowed) => allowed === status) && workerId) return workerId
    throw notRunning(sessionId, status, action)
  }
  const workerId = await find()
  const ask = { timeoutMs: startMs, ...options, path: `/sessions/${sessionId}/${path}` }
  const response = await tunnels.request(workerId, ask)
  if (response.status < 300) return response
  const error = await readError(response)
  if (error.code !== 'NOT_RUNNING') throw refusal(error)
  // It has ended meanwhile, which its row says; or its sandbox never began, which it will say in a moment.
  await find()
  throw notRunning(sessionId, 'running', action)
}

function notRunning(sessionId: string, current: string, action: IoRequest['action']): ApiError {
  const message =
    current === 'running'
      ? `Session ${sessionId} is just beginning or ending: nothing can be done inside`
      : `Session ${sessionId} is ${current}: only in a running one this is possible`
  return invalidState(message, current, sessionCan[action])
}

async function readError({ status, stream }: TunnelResponse): Promise<TunnelError> {
  const pieces: Buffer[] = []
  let size = 0
  for await (const piece of stream) {
    pieces.push(piece as Buffer)
    size += (piece as Buffer).length
    if (size > maxErrorBytes) break
  }
  try {
    return JSON.parse(String(Buffer.concat(pieces))) as TunnelError
  } catch (cause) {
    throw new Error(`A worker answered ${status} without an error that can be read`, { cause })
  }
}

/** The worker's word, as far as it goes out: a worker is trusted less than the control plane. */
function refusal({ code, message }: TunnelError): Error {
  if (code === 'FILE_NOT_FOUND' || code === 'FILE_REFUSED') return new ApiError(code, message)
  if (code === 'SANDBOX_LOST') return new ApiError('WORKER_UNREACHABLE', 'The sandbox of this session is gone.')
  return new Error(`A worker answered ${code}: ${message}`)
}
