import { subscribe } from 'node:diagnostics_channel'
import { appendFileSync } from 'node:fs'
import { join } from 'node:path'
import { type Endpoint, endpoints, type OperationId } from '@paws/api'
import { inject } from 'vitest'

/*
 * Notes which operation answered which status, in the control planes of this process and to its fetch calls; the last
 * test of a run (test/seen.test.ts) compares it with the contract.
 */
const file = join(inject('recordings'), `${process.pid}.txt`)
const noted = new Set<string>()
const foreign = new Set<string>()

/** Notes one answer. */
export function record(operation: string, status: number): void {
  const line = `${operation} ${status}`
  if (noted.has(line)) return
  noted.add(line)
  appendFileSync(file, `${line}\n`)
}

/** Answers from there are of a test's own handlers and say nothing about ours. */
export function ignoreOrigin(origin: string): void {
  foreign.add(origin)
}

const routes = (Object.entries(endpoints) as [OperationId, Endpoint][])
  // Of two that match, as /orgs/{orgId} and a literal, the one with fewer parameters is meant.
  .toSorted(([, a], [, b]) => a.path.split('{').length - b.path.split('{').length)
  .map(([id, { method, path }]) => ({
    id,
    method: method.toUpperCase(),
    form: new RegExp(`^${path.replaceAll('.', '\\.').replaceAll(/\{\w+\}/g, '[^/]+')}(\\?|$)`),
  }))

/** What Node's fetch and undici publish about each answer. */
interface Answered {
  request: { method: string; path: string; origin?: string | URL }
  response: { statusCode: number; headers: Buffer[] }
}

subscribe('undici:request:headers', (message) => {
  const { request, response } = message as Answered
  if (foreign.has(String(request.origin))) return
  // Only ours say so: a fake of somebody else's API must not count.
  if (!response.headers.some((text) => text.toString().startsWith('req_'))) return
  const route = routes.find(({ method, form }) => method === request.method && form.test(request.path))
  if (route) record(route.id, response.statusCode)
})
