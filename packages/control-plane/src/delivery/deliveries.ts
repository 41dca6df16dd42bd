import { sql } from 'kysely'
import type { Logger } from 'pino'
import { Webhook } from 'standardwebhooks'
import type { Database, Transaction } from '../database/index.ts'
import { newId } from '../ids.ts'
import type { Jobs } from '../jobs/index.ts'
import { openPoster, type PosterOptions } from './post.ts'

const queueName = 'deliver'
const second = 1000
const minute = 60 * second
const hour = 60 * minute

/** How long after the end, then after each failure, an attempt is made: the schedule of Standard Webhooks. */
const standardSchedule = [
  0,
  5 * second,
  5 * minute,
  30 * minute,
  ...[2, 5, 10, 14, 20, 24].map((hours) => hours * hour),
]

export interface NewDelivery {
  orgId: string
  sessionId: string
  url: string
}

/** Callbacks about ended sessions: signed, and tried again until they are accepted. */
export interface Deliveries {
  /** Queues the callback with the transaction that ends the session: both happen or neither. */
  queue(trx: Transaction, delivery: NewDelivery): Promise<void>
  close(): Promise<void>
}

export interface DeliveriesOptions extends PosterOptions {
  db: Database
  jobs: Jobs
  log: Logger
  /** Secrets of an organization that sign now: one, or two while they overlap */
  secrets: (orgId: string) => Promise<string[]>
  /** What the callback says, as JSON; undefined when the session is no more */
  body: (orgId: string, sessionId: string) => Promise<string | undefined>
  /** Milliseconds before each attempt; that of Standard Webhooks unless set */
  scheduleMs?: number[]
}

interface Attempt {
  deliveryId: string
  /** Counts from 0 */
  attempt: number
}

export async function openDeliveries(options: DeliveriesOptions): Promise<Deliveries> {
  const { db, jobs, log } = options
  const schedule = options.scheduleMs ?? standardSchedule
  const poster = openPoster(options)
  let closing = false

  async function send(trx: Transaction, { attempt, ...rest }: Attempt, orgId: string) {
    await jobs.send(trx, queueName, { ...rest, attempt }, { afterMs: schedule[attempt] ?? 0, group: orgId })
  }

  async function run({ deliveryId, attempt }: Attempt) {
    const delivery = await db.selectFrom('deliveries').selectAll().where('id', '=', deliveryId).executeTakeFirst()
    // A job may run again although its attempt was recorded.
    if (delivery?.status !== 'pending' || delivery.attempts > attempt) return
    const body = await options.body(delivery.orgId, delivery.sessionId)
    const secrets = await options.secrets(delivery.orgId)
    const result = body === undefined ? gone : await post(deliveryId, delivery.url, body, secrets)
    // What breaks off because this process ends is no answer: the job is run again, by another or after the restart.
    if (closing && result.error) throw new Error('The control plane stops')
    const status = settled(result, attempt + 1 >= schedule.length)
    log.info({ deliveryId, sessionId: delivery.sessionId, attempt, ...result, status }, 'callback')
    await db.transaction().execute(async (trx) => {
      await trx
        .updateTable('deliveries')
        .set({
          status,
          attempts: attempt + 1,
          lastStatus: result.status ?? null,
          lastError: result.error ?? null,
          completedAt: status === 'pending' ? null : sql`now()`,
        })
        .where('id', '=', deliveryId)
        .execute()
      if (status === 'pending') await send(trx, { deliveryId, attempt: attempt + 1 }, delivery.orgId)
    })
  }

  async function post(id: string, url: string, body: string, secrets: string[]): Promise<Result> {
    const now = new Date()
    const headers = {
      'content-type': 'application/json',
      'user-agent': 'paws',
      // The same over retries, so that a receiver can tell a repetition.
      'webhook-id': id,
      'webhook-timestamp': String(Math.floor(now.getTime() / 1000)),
      'webhook-signature': secrets.map((secret) => new Webhook(secret).sign(id, now, body)).join(' '),
    }
    try {
      return { status: await poster.post(url, headers, body) }
    } catch (error) {
      return { error: reasonOf(error) }
    }
  }

  await jobs.work<Attempt>(queueName, { concurrency: 16, groupConcurrency: 4 }, run)
  return {
    async queue(trx, { orgId, sessionId, url }) {
      const id = newId('msg_')
      await trx.insertInto('deliveries').values({ id, orgId, sessionId, url }).execute()
      await send(trx, { deliveryId: id, attempt: 0 }, orgId)
    },
    async close() {
      closing = true
      await poster.close()
    },
  }
}

/** The status of the answer, or why there is none. */
interface Result {
  status?: number
  error?: string
}

const gone: Result = { error: 'The session is no more' }

function settled(result: Result, last: boolean): 'pending' | 'delivered' | 'stopped' | 'exhausted' {
  const { status = 0 } = result
  if (status >= 200 && status < 300) return 'delivered'
  // 410 Gone: the receiver wants no more.
  if (status === 410 || result === gone) return 'stopped'
  return last ? 'exhausted' : 'pending'
}

/** Message of an error, and of what caused it, without anything that could be secret. */
function reasonOf(error: unknown): string {
  const messages: string[] = []
  for (let at = error; at instanceof Error && messages.length < 3; at = at.cause) messages.push(at.message)
  return messages.join(': ').slice(0, 1000) || String(error)
}
