import { OpenAPIRegistry, OpenApiGeneratorV31, type RouteConfig } from '@asteasolutions/zod-to-openapi'
import { ErrorBody } from './common.ts'
import { type Endpoint, errorsOf, isBytesBody, type Returned } from './endpoint.ts'
import { endpoints } from './endpoints.ts'
import { errorCodes } from './error-codes.ts'
import { z } from './zod.ts'

type Responses = RouteConfig['responses']

const tags: Record<Endpoint['tag'], string> = {
  Sessions: 'Runs of a script, each in a throw-away sandbox',
  Snapshots: 'The images that sandboxes start from, and their builds',
  Secrets: 'Values that are stored once, named by sessions, and never read back',
  Fleet: 'The workers, which belong to the operator',
  Organizations: 'Tenants, their API keys and the secret that signs their callbacks',
  Service: 'Health, this document and its reference',
  'Worker link': 'What only workers call',
}

/** The OpenAPI 3.1 document: the contract, said in the field's language. Nothing in it is written by hand. */
export function openApiDocument(version: string) {
  const registry = new OpenAPIRegistry()
  registry.registerComponent('securitySchemes', 'bearer', { type: 'http', scheme: 'bearer', description: 'An API key' })
  registry.registerComponent('securitySchemes', 'apiKey', { type: 'apiKey', in: 'header', name: 'X-API-Key' })
  registry.registerComponent('securitySchemes', 'worker', {
    type: 'http',
    scheme: 'bearer',
    description: "A worker's credential",
  })
  registry.registerComponent('securitySchemes', 'enrolment', {
    type: 'http',
    scheme: 'bearer',
    description: 'A one-time token',
  })
  for (const [operationId, e] of Object.entries(endpoints)) registry.registerPath(route(operationId, e))
  return new OpenApiGeneratorV31(registry.definitions, { sortComponents: 'alphabetically' }).generateDocument({
    openapi: '3.1.0',
    info: {
      title: 'paws Control Plane API',
      version,
      description: 'Runs AI agents in sandboxes. Every answer has `X-Request-Id`; every error has one shape.',
      license: { name: 'Apache-2.0', identifier: 'Apache-2.0' },
    },
    servers: [{ url: '/', description: 'This control plane' }],
    tags: Object.entries(tags).map(([name, description]) => ({ name, description })),
  })
}

function route(operationId: string, e: Endpoint): RouteConfig {
  const headers = e.idempotent
    ? z.object({
        'Idempotency-Key': z
          .string()
          .min(1)
          .max(255)
          .optional()
          .openapi({ description: 'The same key within 24 h replays the first answer' }),
      })
    : undefined
  return {
    operationId,
    method: e.method,
    path: e.path,
    tags: [e.tag],
    summary: e.summary,
    description: [e.description, accessNote(e)].filter(Boolean).join('\n\n'),
    security: securityOf(e),
    request: {
      ...(e.params && { params: e.params }),
      ...(e.query && { query: e.query }),
      ...(headers && { headers }),
      ...(e.body && { body: { required: true, content: bodyContent(e.body) } }),
    },
    responses: { ...success(e), ...failures(e) },
  }
}

function accessNote(e: Endpoint): string {
  if (e.access === 'public') return 'Needs no key.'
  if (e.access === 'key') return 'Any API key.'
  if (e.access === 'worker') return 'Only for workers; an API key is refused.'
  if (e.access === 'enrolment') return 'Only with an enrolment token; an API key is refused.'
  return `Scope: \`${e.access}\`.`
}

function securityOf(e: Endpoint): Record<string, string[]>[] {
  if (e.access === 'public') return []
  if (e.access === 'worker' || e.access === 'enrolment') return [{ [e.access]: [] }]
  return [{ bearer: [] }, { apiKey: [] }]
}

function bodyContent(body: NonNullable<Endpoint['body']>) {
  return isBytesBody(body)
    ? { 'application/octet-stream': { schema: { type: 'string' as const, format: 'binary' } } }
    : { 'application/json': { schema: body } }
}

function success(e: Endpoint): Responses {
  return Object.fromEntries(
    Object.entries(e.returns).map(([status, returned]) => [status, response(returned, e.summary)]),
  )
}

function response(returned: Returned, summary: string): Responses[string] {
  if (!('kind' in returned)) return { description: summary, content: { 'application/json': { schema: returned } } }
  if (returned.kind === 'empty' || returned.kind === 'websocket') return { description: returned.description }
  if (returned.kind === 'bytes') {
    return {
      description: returned.description,
      content: { [returned.contentType]: { schema: { type: 'string', format: 'binary' } } },
    }
  }
  // OpenAPI 3.1 can't type single events: the schema lists them as the members of one object, by event name.
  return {
    description: returned.description,
    content: { 'text/event-stream': { schema: z.object(returned.events).partial() } },
  }
}

function failures(e: Endpoint): Responses {
  const byStatus = new Map<number, string[]>()
  for (const code of errorsOf(e)) {
    for (const status of errorCodes[code]) byStatus.set(status, [...(byStatus.get(status) ?? []), code])
  }
  return Object.fromEntries(
    [...byStatus].sort().map(([status, codes]) => [
      status,
      {
        description: codes.join(', '),
        content: { 'application/json': { schema: ErrorBody }, 'application/problem+json': { schema: Problem } },
      },
    ]),
  )
}

/** The same error in the form of RFC 9457, for clients that accept `application/problem+json`. */
const Problem = z
  .object({
    type: z.string(),
    title: z.string(),
    status: z.int(),
    detail: z.string(),
    code: z.string(),
    requestId: z.string(),
    details: z.array(z.looseObject({ message: z.string() })).optional(),
  })
  .openapi('Problem')
