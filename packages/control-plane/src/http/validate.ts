import type { ErrorCode } from '@paws/api'
import type { z } from 'zod'
import { ApiError } from '../errors.ts'

type Detail = { path: string; message: string }

/** What a path parameter names: a malformed one is simply not found. */
const notFound: Record<string, { code: ErrorCode; what: string }> = {
  sessionId: { code: 'SESSION_NOT_FOUND', what: 'Session' },
  snapshotId: { code: 'SNAPSHOT_NOT_FOUND', what: 'Snapshot' },
  digest: { code: 'SNAPSHOT_NOT_FOUND', what: 'Snapshot' },
  file: { code: 'SNAPSHOT_NOT_FOUND', what: 'Snapshot file' },
  jobId: { code: 'BUILD_NOT_FOUND', what: 'Build' },
  orgId: { code: 'ORGANIZATION_NOT_FOUND', what: 'Organization' },
  keyId: { code: 'API_KEY_NOT_FOUND', what: 'API key' },
  secretName: { code: 'SECRET_NOT_FOUND', what: 'Secret' },
  name: { code: 'WORKER_NOT_FOUND', what: 'Worker' },
}

/** Names that later versions bring: refused by name until they work. */
const later = new Set(['agent', 'expose', 'daemon', 'approval', 'governance', 'trigger'])

/** JSON that is kept as it came, whatever its strings hold. */
const opaque = new Set(['metadata', 'outcome.output'])
/** Text that reaches a program as bytes, NUL included. */
const binary = new Set(['workload.script', 'stdin', 'log'])

/** Most fields that one answer names. */
const mostDetails = 100

/** @throws the NOT_FOUND of what the malformed parameter would name */
export function validateParams(schema: z.ZodType | undefined, params: Record<string, string>): unknown {
  if (!schema) return undefined
  for (const [name, value] of Object.entries(params)) {
    if (isPlain(value) && value.length <= 200) continue
    const { code, what } = notFound[name] ?? { code: 'NOT_FOUND', what: 'It' }
    throw new ApiError(code, `${what} not found: its name is malformed`)
  }
  return check(schema, params)
}

/** @throws VALIDATION_ERROR */
export function validateQuery(schema: z.ZodType | undefined, query: URLSearchParams): unknown {
  if (!schema) return undefined
  const values = new Map<string, string>()
  for (const [name, value] of query) {
    if (values.has(name)) throw refuse([{ path: name, message: 'Given more than once' }])
    if (!isPlain(name) || !isPlain(value)) throw refuse([{ path: name, message: 'Must not contain NUL' }])
    values.set(name, value)
  }
  return check(schema, Object.fromEntries(values))
}

/** @throws VALIDATION_ERROR */
export function validateBody(schema: z.ZodType, body: unknown): unknown {
  const parsed = check(schema, body)
  const details: Detail[] = []
  checkText(body, '', details)
  if (details.length > 0) throw refuse(details)
  return parsed
}

function check(schema: z.ZodType, value: unknown): unknown {
  const parsed = schema.safeParse(value)
  if (parsed.success) return parsed.data
  throw refuse(parsed.error.issues.flatMap((issue) => describe(issue)))
}

function refuse(found: Detail[]): ApiError {
  // One entry a field: of several complaints about one, the first says enough.
  const details = [...new Map(found.toReversed().map((detail) => [detail.path, detail])).values()].reverse()
  const shown = details.slice(0, mostDetails)
  const [first] = shown
  const more = details.length > 1 ? ` (and ${details.length - 1} more, see details)` : ''
  return new ApiError('VALIDATION_ERROR', `${first?.path}: ${first?.message}${more}`, { details: shown })
}

function describe(issue: z.core.$ZodIssue): Detail[] {
  const path = issue.path.map(String)
  if (issue.code === 'unrecognized_keys') {
    return issue.keys.map((key) => ({
      path: name([...path, key]),
      message: later.has(key) ? `"${key}" is not supported yet by this version` : `Unknown key "${shorten(key)}"`,
    }))
  }
  if (issue.code === 'invalid_key') {
    return [{ path: name(path), message: issue.issues[0]?.message ?? issue.message }]
  }
  return [{ path: name(path), message: issue.message }]
}

// PostgreSQL's text and jsonb can't hold these, and a program would get other bytes than were sent.
function checkText(value: unknown, path: string, details: Detail[]): void {
  if (details.length >= mostDetails || opaque.has(path)) return
  if (typeof value === 'string') {
    if (!value.isWellFormed())
      details.push({ path: path || 'body', message: 'Contains half a surrogate pair: not text' })
    else if (value.includes('\0') && !binary.has(path))
      details.push({ path: path || 'body', message: 'Must not contain NUL' })
  } else if (typeof value === 'object' && value !== null) {
    for (const [key, inner] of Object.entries(value)) {
      const at = path ? `${path}.${key}` : key
      if (!isPlain(key)) details.push({ path: at, message: 'A name must be text without NUL' })
      else checkText(inner, at, details)
    }
  }
}

const isPlain = (text: string) => text.isWellFormed() && !text.includes('\0')
const shorten = (text: string) => (text.length > 200 ? `${text.slice(0, 200)}…` : text)
const name = (path: string[]) => shorten(path.join('.')) || 'body'
