import { endpoint } from './endpoint.ts'
import { z } from './zod.ts'

const Ready = z.object({ status: z.literal('ready'), version: z.string() }).openapi('Ready')
const document = { kind: 'bytes', description: 'This document', contentType: 'application/json' } as const

export const getHealth = endpoint({
  method: 'get',
  path: '/healthz',
  access: 'public',
  tag: 'Service',
  summary: 'Say that the process is up',
  returns: { 200: z.object({ status: z.literal('ok') }) },
  errors: [],
})

const ready = {
  method: 'get',
  access: 'public',
  tag: 'Service',
  summary: 'Say whether database and migrations are ready',
  returns: { 200: Ready },
  errors: ['NOT_READY'],
} as const
export const getReadiness = endpoint({ ...ready, path: '/readyz' })
export const getReadinessAlias = endpoint({ ...ready, path: '/health' })

export const getOpenApi = endpoint({
  method: 'get',
  path: '/openapi.json',
  access: 'public',
  tag: 'Service',
  summary: 'Get the OpenAPI 3.1 document',
  returns: { 200: document },
  errors: [],
})
export const getOpenApiAlias = endpoint({ ...getOpenApi, path: '/api/openapi' })

export const getReference = endpoint({
  method: 'get',
  path: '/reference',
  access: 'public',
  tag: 'Service',
  summary: 'Browse the API',
  returns: { 200: { kind: 'bytes', description: 'A page', contentType: 'text/html' } },
  errors: [],
})
