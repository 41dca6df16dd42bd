import { openApiDocument } from '@paws/api'
import { pendingMigrations } from '../../database/index.ts'
import { ApiError } from '../../errors.ts'
import type { Services } from '../../services.ts'
import { version } from '../../version.ts'
import type { Handlers, Reply } from '../handler.ts'
import { referencePage } from '../reference.ts'

export const serviceHandlers = {
  getHealth: async () => ({ status: 200, json: { status: 'ok' } }),
  getReadiness: (_input, services) => ready(services),
  getReadinessAlias: (_input, services) => ready(services),
  getOpenApi: async () => document(),
  getOpenApiAlias: async () => document(),
  getReference: async () => ({ status: 200, bytes: await referencePage(), contentType: 'text/html; charset=utf-8' }),
} satisfies Partial<Handlers>

async function ready({ db }: Services): Promise<Reply> {
  let pending: string[]
  try {
    pending = await pendingMigrations(db)
  } catch (error) {
    throw new ApiError('NOT_READY', 'The database does not answer as it should', { cause: error, retryAfterMs: 1000 })
  }
  if (pending.length > 0) {
    throw new ApiError('NOT_READY', `The database lacks migrations: ${pending.join(', ')}`, { retryAfterMs: 1000 })
  }
  return { status: 200, json: { status: 'ready', version } }
}

// The contract can't change while the process runs.
let generated: string | undefined

function document(): Reply {
  generated ??= JSON.stringify(openApiDocument(version))
  return { status: 200, bytes: generated, contentType: 'application/json' }
}
