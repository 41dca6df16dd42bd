import type { ErrorCode } from '@paws/api'

export interface ApiErrorOptions {
  /** One entry a field or state; sent to the caller */
  details?: { path?: string; message: string; [key: string]: unknown }[]
  /** When to come again, in milliseconds; becomes `Retry-After` */
  retryAfterMs?: number
  /** Where the code has more than one status */
  status?: number
  /** What really happened; logged under the request id, never sent */
  cause?: unknown
}

/** What rooms throw to refuse; only `http/` turns it into an answer. The message names the thing and the remedy. */
export class ApiError extends Error {
  override name = 'ApiError'
  readonly code: ErrorCode
  readonly details: ApiErrorOptions['details']
  readonly retryAfterMs: number | undefined
  readonly status: number | undefined

  constructor(code: ErrorCode, message: string, options: ApiErrorOptions = {}) {
    super(message, { cause: options.cause })
    this.code = code
    this.details = options.details
    this.retryAfterMs = options.retryAfterMs
    this.status = options.status
  }
}

/** Refuses what the state of a thing does not allow. The client gets the state and those that would do. */
export function invalidState(message: string, current: string, allowed: readonly string[]): ApiError {
  return new ApiError('INVALID_STATE', message, {
    details: [{ message: `It is ${current}`, current, allowed }],
  })
}
