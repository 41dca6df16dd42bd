import type { IncomingHttpHeaders } from 'node:http'
import { type Access, type Scope, scopes } from '@paws/api'
import { ApiError } from '../errors.ts'
import { authenticateEnrolment, authenticateWorker } from '../fleet/index.ts'
import type { Services } from '../services.ts'
import type { EnrolmentCaller, KeyCaller, WorkerCaller } from './handler.ts'

export type Caller = KeyCaller | WorkerCaller | EnrolmentCaller | null

/**
 * Establishes who asks, as the access rule of an operation demands.
 *
 * @throws UNAUTHORIZED without the right kind of credential, FORBIDDEN without the scope
 */
export async function authenticate(access: Access, headers: IncomingHttpHeaders, services: Services): Promise<Caller> {
  if (access === 'public') return null
  if (access === 'worker') return authenticateBy(authenticateWorker, headers, services, "a worker's credential")
  if (access === 'enrolment') return authenticateBy(authenticateEnrolment, headers, services, 'an enrolment token')
  const caller = await authenticateCaller(headers, services)
  if (access !== 'key') demandScope(caller, access)
  return caller
}

async function authenticateCaller(headers: IncomingHttpHeaders, services: Services): Promise<KeyCaller> {
  const key = bearer(headers) ?? single(headers['x-api-key'])
  if (!key) {
    throw new ApiError('UNAUTHORIZED', 'No API key: send "Authorization: Bearer <key>" or "X-API-Key: <key>"')
  }
  const caller = await services.keys.authenticate(key)
  if (!caller) throw new ApiError('UNAUTHORIZED', 'This API key is not valid: it is unknown, revoked or expired')
  return caller
}

async function authenticateBy<C>(
  check: (services: Services, token: string) => Promise<C | undefined>,
  headers: IncomingHttpHeaders,
  services: Services,
  what: string,
): Promise<C> {
  const token = bearer(headers)
  const caller = token ? await check(services, token) : undefined
  if (!caller) throw new ApiError('UNAUTHORIZED', `This needs ${what} that is valid: "Authorization: Bearer …"`)
  return caller
}

function demandScope(caller: KeyCaller, scope: Scope): void {
  if (caller.scopes.has(scope)) return
  throw new ApiError('FORBIDDEN', `This API key lacks the scope "${scope}" (${scopes[scope]})`, {
    details: [{ path: 'scope', message: scope }],
  })
}

function bearer(headers: IncomingHttpHeaders): string | undefined {
  return /^Bearer +([\x21-\x7e]+) *$/i.exec(headers.authorization ?? '')?.[1]
}

function single(header: string | string[] | undefined): string | undefined {
  return typeof header === 'string' ? header.trim() : undefined
}
