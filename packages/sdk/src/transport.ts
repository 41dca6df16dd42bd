import { errorFrom, PawsError, unreachable } from './errors.ts'
import { backoff, pause } from './pause.ts'

export interface TransportOptions {
  /** Where the control plane is, like `https://paws.example.com` */
  url: string
  /** Absent in a browser that is signed in by cookie */
  apiKey?: string
  /** Another `fetch` than the global one */
  fetch?: (request: Request) => Promise<Response>
  /** How often a request that may be repeated is repeated; default 4 */
  retries?: number
}

/** Sends requests to one control plane with one key. */
export interface Transport {
  readonly url: string
  readonly authorization: Record<string, string>
  /**
   * Sends, and repeats after a lost connection or a passing refusal whatever can't happen twice by it.
   *
   * @throws PawsError for every answer but success; the signal's reason when it aborts
   */
  send(request: Request, options?: { retries?: number }): Promise<Response>
  /** A request for a path of the API */
  request(path: string, init?: RequestInit & { query?: Record<string, string | number | undefined> }): Request
}

/** Longest wait that is sat out when the server says when to come again. */
const longestRetryAfterMs = 10_000

export function createTransport(options: TransportOptions): Transport {
  const url = baseUrl(options.url)
  const authorization: Record<string, string> = options.apiKey ? { authorization: `Bearer ${options.apiKey}` } : {}
  const fetchOnce = options.fetch ?? ((request: Request) => fetch(request))

  async function attempt(request: Request): Promise<Response> {
    let response: Response
    try {
      response = await fetchOnce(request)
    } catch (error) {
      if (request.signal.aborted) throw request.signal.reason
      throw unreachable(url, error)
    }
    // 101 can't come from fetch, and a redirect has been followed by it.
    if (response.ok) return response
    throw await errorFrom(response)
  }

  return {
    url,
    authorization,
    request(path, { query, ...init } = {}) {
      const target = new URL(url + path)
      for (const [name, value] of Object.entries(query ?? {})) {
        if (value !== undefined) target.searchParams.set(name, String(value))
      }
      return new Request(target, init)
    },
    async send(request, { retries = mayRepeat(request) ? (options.retries ?? 4) : 0 } = {}) {
      for (const [name, value] of Object.entries(authorization)) request.headers.set(name, value)
      for (let tries = 0; tries < retries; tries++) {
        try {
          return await attempt(request.clone())
        } catch (error) {
          if (!passes(error)) throw error
          await pause(error.retryAfterMs ?? backoff(tries), request.signal)
        }
      }
      return attempt(request)
    },
  }
}

/** POST only with a key by which the server knows the second request for the first. */
function mayRepeat(request: Request): boolean {
  return request.method === 'POST' ? request.headers.has('idempotency-key') : request.method !== 'PATCH'
}

/** Whether the same request may well succeed in a moment. */
function passes(error: unknown): error is PawsError {
  if (!(error instanceof PawsError)) return false
  if ((error.retryAfterMs ?? 0) > longestRetryAfterMs) return false
  // The first request with this key is still being answered.
  if (error.code === 'IDEMPOTENCY_CONFLICT') return error.status === 409
  return [0, 429, 502, 503, 504].includes(error.status)
}

function baseUrl(url: string): string {
  const parsed = URL.parse(url)
  if (!parsed || !/^https?:$/.test(parsed.protocol)) {
    throw new Error(`"${url}" is not the URL of a control plane. It looks like http://localhost:8080.`)
  }
  return (parsed.origin + parsed.pathname).replace(/\/+$/, '')
}
