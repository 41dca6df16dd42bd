import type { IncomingMessage, ServerResponse } from 'node:http'
import { errorCodes } from '@paws/api'
import type { Logger } from 'pino'
import { ApiError } from '../errors.ts'
import { newId } from '../ids.ts'

/** Names one request, in its answer and in every line that is logged about it. */
export const makeRequestId = () => newId('req_')

/** Whether an answer was kept from an earlier request with the same `Idempotency-Key`. */
export const replayedHeader = 'Idempotent-Replayed'

/**
 * Answers an error in the one shape, or as RFC 9457 where the client accepts `application/problem+json`.
 * What isn't an ApiError is ours: its cause is logged under the request id and never sent.
 *
 * @returns the status
 */
export function answerError(
  request: IncomingMessage,
  response: ServerResponse,
  thrown: unknown,
  context: { requestId: string; log: Logger },
): number {
  const { requestId, log } = context
  const error = thrown instanceof ApiError ? thrown : new ApiError('INTERNAL_ERROR', internal, { cause: thrown })
  const status = error.status ?? errorCodes[error.code][0]
  if (status >= 500) log.error({ err: error.cause ?? error, code: error.code, url: request.url }, error.message)
  else if (error.cause !== undefined) log.info({ err: error.cause, code: error.code }, error.message)
  if (response.headersSent) {
    // Half an answer can't be taken back: cutting it off is the only way to say that it isn't whole.
    response.destroy()
    return status
  }
  if (status === 401) response.setHeader('WWW-Authenticate', 'Bearer realm="paws"')
  if (error.retryAfterMs !== undefined) {
    response.setHeader('Retry-After', String(Math.max(1, Math.ceil(error.retryAfterMs / 1000))))
  }
  const problem = (request.headers.accept ?? '').includes('application/problem+json')
  const body = JSON.stringify(problem ? asProblem(error, status, requestId) : asError(error, requestId))
  response.writeHead(status, {
    'Content-Type': problem ? 'application/problem+json' : 'application/json',
    'Content-Length': Buffer.byteLength(body),
  })
  response.end(body)
  return status
}

const internal = 'Something went wrong here. The request id names it in the log of the control plane.'

export function asError({ code, message, details }: ApiError, requestId: string) {
  return { error: { code, message, requestId, ...(details && { details }) } }
}

function asProblem({ code, message, details }: ApiError, status: number, requestId: string) {
  return {
    type: `urn:paws:error:${code}`,
    title: code,
    status,
    detail: message,
    code,
    requestId,
    ...(details && { details }),
  }
}
