import type { Logger } from 'pino'
import type { BuildClaim, Places } from '../link/claims.ts'
import { type CallOptions, type Link, retry } from '../link/client.ts'
import type { Heartbeat } from '../link/heartbeat.ts'
import type { Driver } from '../sandbox/driver.ts'
import { buildSnapshot, type SnapshotStore, uploadSnapshot } from '../snapshots/index.ts'
import { tellProgress } from './progress.ts'
import { putFile } from './transfer.ts'

export interface BuildsOptions {
  link: Link
  log: Logger
  heartbeat: Pick<Heartbeat, 'hold'>
  /** Makes the sandboxes that setups run in */
  driver: Pick<Driver, 'start'>
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
  const { store, driver, templatesDir, link, log } = options
  const { onProgress, onLine, end } = tellProgress(claim, options)
  try {
    const built = await buildSnapshot({ store, driver, templatesDir, order: claim, onProgress, onLine, log, signal })
    onProgress({ progress: 0.97, step: 'Storing the image' })
    await uploadSnapshot(built, putFile(link, signal))
    return { status: 'ready', digest: built.digest, sizeBytes: built.sizeBytes }
  } catch (error) {
    // A build that was stopped failed for that reason, whatever broke by it.
    const reason = signal.aborted ? signal.reason : error
    log.warn({ err: error, jobId: claim.jobId }, 'A build failed')
    return { status: 'failed', error: (reason instanceof Error ? reason.message : String(reason)).slice(0, 4000) }
  } finally {
    await end()
  }
}
