import type { ErrorCode } from '@paws/api/error-codes'
import type { components } from './generated/api.ts'

/** `UNREACHABLE`: no answer came. `UNEXPECTED_ANSWER`: something answered that is not paws. */
export type PawsErrorCode = ErrorCode | 'UNREACHABLE' | 'UNEXPECTED_ANSWER'

export interface PawsErrorOptions {
  code: PawsErrorCode
  /** HTTP status; 0 when no answer came */
  status: number
  requestId?: string
  /** One entry a field, or the current and the allowed states */
  details?: { path?: string; message: string; [key: string]: unknown }[]
  /** When the server says to come again, in milliseconds */
  retryAfterMs?: number
  cause?: unknown
}

/** Why a request did not do what was asked. The message is for people; `code` is for programs. */
export class PawsError extends Error {
  override name = 'PawsError'
  readonly code: PawsErrorCode
  readonly status: number
  readonly requestId: string | undefined
  readonly details: PawsErrorOptions['details']
  readonly retryAfterMs: number | undefined

  constructor(message: string, options: PawsErrorOptions) {
    super(message, { cause: options.cause })
    this.code = options.code
    this.status = options.status
    this.requestId = options.requestId
    this.details = options.details
    this.retryAfterMs = options.retryAfterMs
  }
}

/** Reads a refusal. Whatever stands between (a proxy, another program on that port) may answer something else than paws. */
export async function errorFrom(response: Response): Promise<PawsError> {
  const requestId = response.headers.get('x-request-id') ?? undefined
  const retryAfterMs = retryAfter(response)
  const text = await response.text()
  const error = parseError(text)
  if (error) return new PawsError(error.message, { ...error, status: response.status, retryAfterMs })
  const what = `${response.url} answered ${response.status} ${response.statusText}`.trim()
  return new PawsError(`${what}, which is not an answer of paws. Check the URL and what stands before it.`, {
    code: 'UNEXPECTED_ANSWER',
    status: response.status,
    requestId,
    retryAfterMs,
  })
}

/** @param cause what `fetch` or a broken stream threw */
export function unreachable(url: string, cause: unknown): PawsError {
  const message = `${new URL(url).origin} could not be reached: ${reasonOf(cause)}. Check the URL, and that the control plane is running.`
  return new PawsError(message, { code: 'UNREACHABLE', status: 0, cause })
}

function parseError(text: string): components['schemas']['Error']['error'] | undefined {
  try {
    const body = JSON.parse(text) as Partial<components['schemas']['Error']> | null
    return typeof body?.error?.code === 'string' && typeof body.error.message === 'string' ? body.error : undefined
  } catch {
    // Not JSON, so not ours; the caller says that.
    return undefined
  }
}

function retryAfter(response: Response): number | undefined {
  const header = response.headers.get('retry-after')
  if (header === null) return undefined
  const seconds = Number(header)
  const ms = Number.isNaN(seconds) ? Date.parse(header) - Date.now() : seconds * 1000
  return Number.isNaN(ms) ? undefined : Math.max(0, ms)
}

/** The innermost reason: `fetch` says only "fetch failed", and why stands in its cause. */
function reasonOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error)
  if (error.cause instanceof Error) return reasonOf(error.cause)
  return error.message || (error as { code?: string }).code || error.name
}
