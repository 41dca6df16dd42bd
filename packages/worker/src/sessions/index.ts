import { setTimeout as sleep } from 'node:timers/promises'
import type { Logger } from 'pino'
import type { Places, SessionClaim } from '../link/claims.ts'
import { type Link, retry } from '../link/client.ts'
import type { Heartbeat } from '../link/heartbeat.ts'
import type { Journals, Leftover, Outcome } from '../link/journal.ts'
import { openReport, type ReportOptions } from '../link/report.ts'
import type { Driver } from '../sandbox/driver.ts'
import { causeOf, type Run, runSession, type Snapshots } from './run.ts'

export interface SessionsOptions {
  link: Link
  log: Logger
  driver: Pick<Driver, 'start'>
  snapshots: Snapshots
  heartbeat: Pick<Heartbeat, 'hold'>
  journals: Journals
  places: Places
}

/** A claimed session, until its end is reported. */
export interface Held {
  readonly run: Run
  /** Resolves with its status once that is stored, or with nothing when it is another's; never rejects */
  readonly settled: Promise<Outcome['status'] | undefined>
}

/** The sessions that this worker has claimed. */
export interface Sessions {
  begin(claim: SessionClaim): void
  /** A claim may still be on its way here when somebody asks about its session: that is waited for, a moment long. */
  find(sessionId: string): Promise<Held | undefined>
  /** Reports what former runs of this worker left behind. */
  recover(): Promise<void>
  /** Resolves when all that run now have ended by themselves and are reported. */
  idle(): Promise<void>
  /** Ends all that run, and waits for their reports; those that can't be delivered are left to the next run */
  close(): Promise<void>
}

/** How long ended sessions may wait for their acknowledgement when the worker closes. */
const lastReportsMs = 10_000

/** How long a claim may be on its way from the control plane. */
const claimMs = 1_000

const restarted: Omit<Outcome, 'durationMs'> = {
  status: 'failed',
  error: { code: 'WORKER_RESTARTED', message: 'The worker ended unexpectedly while the session ran. Start it again.' },
}

export function openSessions(options: SessionsOptions): Sessions {
  const { heartbeat, journals, log, link } = options
  const held = new Map<string, Held>()
  const reports = new Set<Promise<unknown>>()
  const closing = new AbortController()
  const reporting = { link, log, closing: closing.signal } satisfies Partial<ReportOptions>

  function keep(report: Promise<unknown>): Promise<unknown> {
    const kept = report.finally(() => reports.delete(kept))
    reports.add(kept)
    return kept
  }

  async function recoverOne({ journal, chunks, outcome }: Leftover) {
    const ignore = () => undefined
    const { sessionId: id, fence } = journal
    const lease = { kind: 'session', id, fence, leaseMs: 60_000 } as const
    const release = heartbeat.hold({ ...lease, onLost: ignore, onCancel: ignore, onOutOfContact: ignore })
    const report = openReport({ ...reporting, journal, earlier: chunks })
    const answer = await report.finish(
      outcome ?? { ...restarted, durationMs: Math.max(0, Date.now() - journal.begunAt) },
    )
    release()
    log.info({ sessionId: id, answer }, 'Reported a session of a former run')
  }

  return {
    begin(claim) {
      const { sessionId } = claim
      const session = openSession(options, reporting, claim)
      held.set(sessionId, session)
      void keep(session.settled).then(() => held.delete(sessionId))
    },
    async find(sessionId) {
      for (const until = performance.now() + claimMs; performance.now() < until; await sleep(20)) {
        const session = held.get(sessionId)
        if (session) return session
      }
      return undefined
    },
    async recover() {
      for (const leftover of await journals.leftovers()) {
        const failed = (error: unknown) => log.error({ err: error }, 'What a former run left could not be reported')
        void keep(recoverOne(leftover).catch(failed))
      }
    },
    async idle() {
      await Promise.all(reports)
    },
    async close() {
      const runs = [...held.values()].map(({ run }) => run)
      for (const run of runs) run.end('stopped')
      await Promise.all(runs.map(({ gone }) => gone))
      const timer = setTimeout(() => closing.abort(), lastReportsMs)
      await Promise.all(reports)
      clearTimeout(timer)
    },
  }
}

type Reporting = Pick<ReportOptions, 'link' | 'log' | 'closing'>

function openSession(options: SessionsOptions, reporting: Reporting, claim: SessionClaim): Held {
  const { heartbeat, journals, places, log } = options
  const { sessionId: id, fence, leaseMs } = claim
  const giveBack = places.take()
  const report = journals.begin(id, fence).then((journal) => openReport({ ...reporting, journal }))
  const run = runSession({ ...options, claim, report })
  report.then(
    ({ broken }) => broken.then((error) => run.end(causeOf(error))),
    (error: unknown) => {
      log.error({ err: error }, 'The journal can not be written: no session can run here')
      run.end('unreportable')
    },
  )
  void run.gone.then(giveBack)
  const release = heartbeat.hold({
    ...{ kind: 'session', id, fence, leaseMs },
    onLost: () => run.end('lost'),
    onCancel: () => run.end('cancelled'),
    onOutOfContact: () => run.end('out-of-contact'),
  })

  async function settle(): Promise<Outcome['status'] | undefined> {
    const { outcome, cause } = await run.outcome
    // Whoever waits for the report has been told above why there is none.
    const reported = await report.catch(() => undefined)
    const answer = reported && (cause === 'lost' ? await reported.abandon() : await reported.finish(outcome))
    if (!reported) await reportUnwritten(reporting, claim, outcome)
    release()
    const { status, durationMs } = outcome
    log.info({ sessionId: id, status, cause, durationMs, report: answer ?? 'none' }, 'A session ended')
    return answer === 'acknowledged' ? status : undefined
  }

  return { run, settled: settle() }
}

/** Without a journal nothing runs on; that it doesn't is told as long as this process lives. */
async function reportUnwritten(
  { link, log, closing }: Reporting,
  { sessionId, fence }: SessionClaim,
  outcome: Outcome,
) {
  const body = { fence, outcome, first: 1, chunks: [] }
  const finish = () => link.call('finishSession', { params: { sessionId }, body, signal: closing })
  const failed = (error: unknown) => log.warn({ err: error, sessionId }, 'The end of a session was not reported')
  await retry(finish, { name: 'Reporting the end of a session', log, signal: closing }).catch(failed)
}
