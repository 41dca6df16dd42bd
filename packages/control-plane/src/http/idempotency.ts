import { errorCodes, type OperationId } from '@paws/api'
import { sql } from 'kysely'
import type { Database } from '../database/index.ts'
import { ApiError } from '../errors.ts'
import type { Services } from '../services.ts'
import type { SealedColumn } from '../vault/index.ts'
import type { KeyCaller, Reply } from './handler.ts'

/** How long a first answer is kept. */
const keptMs = 24 * 3_600_000
/** A request in flight for longer than this died with its control plane; its key is free again. */
const abandonedMs = 60_000

export interface IdempotentRequest {
  caller: KeyCaller
  operation: OperationId
  /** Value of the `Idempotency-Key` header */
  key: string
  params: unknown
  rawBody: Uint8Array
}

/** What is kept of a first answer: an error without its request id, which is each request's own. */
type Kept =
  | { status: number; json?: unknown }
  | { status: number; error: { code: keyof typeof errorCodes; message: string; details?: ApiError['details'] } }

/**
 * Runs a handler once a key, and answers the same again to whoever repeats the request within 24 h.
 * Bodies are kept as keyed digests only, answers sealed. An answer of 500 or more isn't kept.
 *
 * @throws IDEMPOTENCY_CONFLICT while the first is in flight (409) or when the body differs (422)
 */
export async function answerOnce(
  services: Services,
  request: IdempotentRequest,
  run: () => Promise<Reply>,
): Promise<{ reply: Reply; replayed: boolean }> {
  checkKey(request.key)
  const digest = services.vault.digest(
    'idempotency',
    Buffer.concat([Buffer.from(`${request.operation}\0${JSON.stringify(request.params ?? null)}\0`), request.rawBody]),
  )
  const taken = await take(services, request, digest)
  if (taken === null) return { reply: await replay(services, request, digest), replayed: true }
  try {
    const reply = await run()
    if ('json' in reply) await keep(services, request, taken, { status: reply.status, json: reply.json })
    else if ('empty' in reply) await keep(services, request, taken, { status: reply.status })
    else await release(services, request, taken)
    return { reply, replayed: false }
  } catch (error) {
    await settleError(services, request, taken, error)
    throw error
  }
}

/** Forgets what is older than 24 h. */
export async function forgetOldAnswers(services: Pick<Services, 'db'>): Promise<void> {
  await services.db.deleteFrom('idempotencyKeys').where('createdAt', '<', ago(keptMs)).execute()
}

function checkKey(key: string): void {
  if (/^[\x20-\x7e]{1,255}$/.test(key)) return
  const message = 'An Idempotency-Key has 1 to 255 printable ASCII characters'
  throw new ApiError('VALIDATION_ERROR', message, { details: [{ path: 'Idempotency-Key', message }] })
}

const ago = (ms: number) => sql<Date>`now() - ${ms} * interval '1 millisecond'`
/** Exact to the microsecond, unlike a Date: tells this holder of the key from one that took it over. */
const takenAt = sql<string>`created_at::text`

async function take(services: Services, request: IdempotentRequest, digest: Buffer): Promise<string | null> {
  const row = await services.db
    .insertInto('idempotencyKeys')
    .values({
      apiKeyId: request.caller.keyId,
      orgId: request.caller.orgId,
      operation: request.operation,
      key: request.key,
      requestDigest: digest,
    })
    .onConflict((conflict) =>
      conflict
        .columns(['apiKeyId', 'operation', 'key'])
        .doUpdateSet({ createdAt: sql`now()`, requestDigest: digest, status: null, sealedAnswer: null })
        .where((eb) =>
          eb.or([
            eb('idempotencyKeys.createdAt', '<', ago(keptMs)),
            eb.and([
              eb('idempotencyKeys.status', 'is', null),
              eb('idempotencyKeys.createdAt', '<', ago(abandonedMs)),
              eb('idempotencyKeys.requestDigest', '=', digest),
            ]),
          ]),
        ),
    )
    .returning(takenAt.as('takenAt'))
    .executeTakeFirst()
  return row?.takenAt ?? null
}

async function replay(services: Services, request: IdempotentRequest, digest: Buffer): Promise<Reply> {
  const { db, vault } = services
  const row = await readKept(db, request)
  if (row && !row.requestDigest.equals(digest)) {
    throw new ApiError('IDEMPOTENCY_CONFLICT', 'This Idempotency-Key was used with another request: take a new key', {
      status: 422,
    })
  }
  if (!row?.sealedAnswer) {
    throw new ApiError('IDEMPOTENCY_CONFLICT', 'A request with this Idempotency-Key is still in flight: try again', {
      status: 409,
      retryAfterMs: 1000,
    })
  }
  const again = async () => (await readKept(db, request))?.sealedAnswer
  const opened = await vault.open(db, request.caller.orgId, contextOf(request), row.sealedAnswer, again)
  const kept = JSON.parse(opened.toString()) as Kept
  if ('error' in kept) {
    const { code, message, details } = kept.error
    throw new ReplayedError(code, message, { details, status: kept.status })
  }
  return 'json' in kept ? { status: kept.status, json: kept.json } : { status: kept.status, empty: true }
}

function readKept(db: Database, request: IdempotentRequest) {
  return db
    .selectFrom('idempotencyKeys')
    .select(['requestDigest', 'status', 'sealedAnswer'])
    .where('apiKeyId', '=', request.caller.keyId)
    .where('operation', '=', request.operation)
    .where('key', '=', request.key)
    .executeTakeFirst()
}

/** A refusal that was kept; its answer says that it is a replay. */
export class ReplayedError extends ApiError {}

async function settleError(services: Services, request: IdempotentRequest, taken: string, error: unknown) {
  if (error instanceof ApiError) {
    const status = error.status ?? errorCodes[error.code][0]
    const { code, message, details } = error
    if (status < 500) return keep(services, request, taken, { status, error: { code, message, details } })
  }
  await release(services, request, taken)
}

async function keep(services: Services, request: IdempotentRequest, taken: string, kept: Kept): Promise<void> {
  const { db, vault } = services
  await db.transaction().execute(async (trx) => {
    const sealed = await vault.seal(trx, request.caller.orgId, contextOf(request), Buffer.from(JSON.stringify(kept)))
    await trx
      .updateTable('idempotencyKeys')
      .set({ status: kept.status, sealedAnswer: sealed })
      .where('apiKeyId', '=', request.caller.keyId)
      .where('operation', '=', request.operation)
      .where('key', '=', request.key)
      .where(takenAt, '=', taken)
      .execute()
  })
}

async function release(services: Services, request: IdempotentRequest, taken: string): Promise<void> {
  await services.db
    .deleteFrom('idempotencyKeys')
    .where('apiKeyId', '=', request.caller.keyId)
    .where('operation', '=', request.operation)
    .where('key', '=', request.key)
    .where(takenAt, '=', taken)
    .execute()
}

const context = (apiKeyId: string, operation: string, key: string) =>
  `idempotency_keys\0${apiKeyId}\0${operation}\0${key}`
const contextOf = ({ caller, operation, key }: IdempotentRequest) => context(caller.keyId, operation, key)

export const sealedAnswers: SealedColumn = {
  table: 'idempotencyKeys',
  column: 'sealedAnswer',
  key: ['apiKeyId', 'operation', 'key'],
  context: ({ apiKeyId = '', operation = '', key = '' }) => context(apiKeyId, operation, key),
}
