import { setTimeout as sleep } from 'node:timers/promises'
import type { Logger } from 'pino'
import type { BuildClaim, Places } from '../link/claims.ts'
import { type CallOptions, type Link, LinkError, retry } from '../link/client.ts'
import type { Heartbeat } from '../link/heartbeat.ts'
import { type Built, buildSnapshot, type Progress, type SnapshotStore, uploadSnapshot } from '../snapshots/index.ts'
import { putFile } from './transfer.ts'

export interface BuildsOptions {
  link: Link
  log: Logger
  heartbeat: Pick<Heartbeat, 'hold'>
  store: SnapshotStore
  /** The folder `snapshots/` that paws ships with */
  templatesDir: string
  places: Places
}

/** The builds that this worker has claimed. */
export interface Builds {
  begin(claim: BuildClaim): void
  /** Breaks off what is being built, and reports that. */
  close(): Promise<void>
}

/** How long the last reports may take when the worker closes. */
const lastReportMs = 10_000
const reportEveryMs = 500
/** Most of the log in one report, in characters */
const reportChars = 200_000

export function openBuilds(options: BuildsOptions): Builds {
  const { heartbeat, log, link } = options
  const running = new Map<Promise<void>, AbortController>()
  const closing = new AbortController()

  async function run(claim: BuildClaim, ending: AbortController) {
    const { jobId: id, fence, leaseMs } = claim
    const stop = (why: string) => () => ending.abort(new Error(why))
    const lost = new AbortController()
    const release = heartbeat.hold({
      ...{ kind: 'build', id, fence, leaseMs },
      onLost: () => {
        lost.abort()
        ending.abort(new Error('The build is no longer this worker’s.'))
      },
      onCancel: stop('The build was cancelled.'),
      onOutOfContact: stop('The worker could not reach the control plane for so long that it stopped the build.'),
    })
    const outcome = await build(claim, options, ending.signal)
    const signal = AbortSignal.any([lost.signal, closing.signal])
    const finish = () => link.call('finishBuild', { params: { jobId: id }, body: { fence, outcome }, signal })
    const failed = (error: unknown) => log.warn({ err: error, jobId: id }, 'The end of a build was not reported')
    if (!lost.signal.aborted) {
      await retry(finish, { name: 'Reporting the end of a build', log, signal }).catch(failed)
    }
    release()
    log.info({ jobId: id, ...outcome }, 'A build ended')
  }

  return {
    begin(claim) {
      const giveBack = options.places.take()
      const ending = new AbortController()
      const kept = run(claim, ending).finally(() => {
        running.delete(kept)
        giveBack()
      })
      running.set(kept, ending)
    },
    async close() {
      for (const ending of running.values()) ending.abort(new Error('The worker was stopped while it was building.'))
      const timer = setTimeout(() => closing.abort(), lastReportMs)
      await Promise.all(running.keys())
      clearTimeout(timer)
    },
  }
}

type BuildOutcome = CallOptions<'finishBuild'>['body']['outcome']

async function build(claim: BuildClaim, options: BuildsOptions, signal: AbortSignal): Promise<BuildOutcome> {
  const { store, templatesDir, link } = options
  const { snapshotId, template } = claim
  const progress = followProgress(claim, options)
  try {
    const { onProgress, onLine } = progress
    const built: Built = await buildSnapshot({ store, templatesDir, snapshotId, template, onProgress, onLine, signal })
    onProgress({ progress: 0.97, step: 'Storing the image' })
    await uploadSnapshot(built, putFile(link, signal))
    return { status: 'ready', digest: built.digest, sizeBytes: built.sizeBytes }
  } catch (error) {
    // A build that was stopped failed for that reason, whatever broke by it.
    const reason = signal.aborted ? signal.reason : error
    options.log.warn({ err: error, jobId: claim.jobId }, 'A build failed')
    return { status: 'failed', error: (reason instanceof Error ? reason.message : String(reason)).slice(0, 4000) }
  } finally {
    await progress.end()
  }
}

/** Tells the control plane how far a build is, now and then. What can't be told is told with the next. */
function followProgress({ jobId, fence }: BuildClaim, { link, log }: BuildsOptions) {
  let lines = ''
  let last: Progress = { progress: 0, step: 'Starting' }
  let fresh = true
  const over = new AbortController()

  async function tell() {
    fresh = false
    const sent = lines.slice(0, reportChars)
    try {
      const body = { fence, ...last, log: sent }
      await link.call('reportBuild', { params: { jobId }, body })
      lines = lines.slice(sent.length)
      fresh ||= lines.length > 0
    } catch (error) {
      log.debug({ err: error, jobId }, "A build's progress was not told")
      // A refusal will not change; the heartbeat says why.
      if (error instanceof LinkError && !error.passing) over.abort()
      else fresh = true
    }
  }

  async function run() {
    while (!over.signal.aborted) {
      if (fresh) await tell()
      // Woken by the end.
      await sleep(reportEveryMs, undefined, { signal: over.signal }).catch(() => undefined)
    }
  }
  const running = run()

  return {
    onProgress: (progress: Progress) => {
      last = progress
      fresh = true
    },
    onLine: (line: string) => {
      lines += `${line}\n`
      fresh = true
    },
    /** Tells the rest, as far as that is possible at the first try. */
    async end() {
      over.abort()
      await running
      if (lines.length > 0) await tell()
    },
  }
}
