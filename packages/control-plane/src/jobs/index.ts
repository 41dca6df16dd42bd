import { fromKysely, PgBoss } from 'pg-boss'
import type { Logger } from 'pino'
import type { Transaction } from '../database/index.ts'

export interface WorkOptions {
  /** How many run at once in this process; 1 unless set */
  concurrency?: number
  /** How many of one group run at once in this process */
  groupConcurrency?: number
}

export interface SendOptions {
  /** How long to wait; at once unless set */
  afterMs?: number
  /** What it shares its turn with: jobs of one group don't keep those of others waiting */
  group?: string
}

/** Background jobs, kept by the database: they outlive every process, and one that fails or dies is run again. */
export interface Jobs {
  /** Runs the jobs of a queue from now on; a job may run more than once, so its work bears repetition. */
  work<T extends object>(
    queue: string,
    options: WorkOptions,
    run: (data: T, signal: AbortSignal) => Promise<void>,
  ): Promise<void>
  /** Queues a job with the transaction: it runs if that commits, at once or after `afterMs`. */
  send(trx: Transaction, queue: string, data: object, options?: SendOptions): Promise<void>
  close(): Promise<void>
}

export async function openJobs(url: string, log: Logger): Promise<Jobs> {
  const boss = new PgBoss({
    connectionString: url,
    schema: 'pgboss',
    application_name: 'paws jobs',
    max: 5,
    useListenNotify: true,
    // Nothing is scheduled by cron yet, and what runs by cron polls.
    schedule: false,
  })
  boss.on('error', (error) => log.error({ err: error }, 'background jobs'))
  boss.on('warning', (warning) => log.warn(warning.data, warning.message))
  await boss.start()

  return {
    async work(queue, options, run) {
      await boss.createQueue(queue, {
        notify: true,
        // A holder that died is noticed by its heartbeat, and its job is run again.
        heartbeatSeconds: 10,
        retryLimit: 1_000_000,
        retryDelay: 1,
        retryBackoff: true,
        retryDelayMax: 60,
        retentionSeconds: 14 * 86_400,
        deleteAfterSeconds: 3600,
      })
      const { concurrency = 1, groupConcurrency } = options
      await boss.work<object>(
        queue,
        {
          localConcurrency: concurrency,
          ...(groupConcurrency && { localGroupConcurrency: groupConcurrency }),
          // New jobs wake them; this finds those whose time has come.
          pollingIntervalSeconds: 2,
          notifyPollingIntervalSeconds: 2,
        },
        async ([job]) => {
          if (!job) return
          try {
            await run(job.data as never, job.signal)
          } catch (error) {
            log.error({ err: error, queue, jobId: job.id }, 'a background job failed and will be run again')
            throw error
          }
        },
      )
    },
    async send(trx, queue, data, { afterMs = 0, group } = {}) {
      await boss.send(queue, data, {
        ...(afterMs > 0 && { startAfter: new Date(Date.now() + afterMs) }),
        ...(group && { group: { id: group } }),
        db: fromKysely(trx),
      })
    },
    async close() {
      await boss.stop({ graceful: true, timeout: 20_000 })
    },
  }
}
