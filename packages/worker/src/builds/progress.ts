import { setTimeout as sleep } from 'node:timers/promises'
import type { Logger } from 'pino'
import type { BuildClaim } from '../link/claims.ts'
import { type Link, LinkError } from '../link/client.ts'
import type { Progress } from '../snapshots/index.ts'

const reportEveryMs = 500
/** Most of the log in one report, in characters */
const reportChars = 200_000
/** Most that waits to be told: whoever says more waits with it */
const waitingChars = 1_000_000
/** Most of a whole log, in characters */
const logChars = 16 * 1024 * 1024

export interface Teller {
  onProgress(progress: Progress): void
  /** Takes a line. Resolves when there is room for the next */
  onLine(line: string): Promise<void>
  /** Tells the rest, as far as that is possible at the first try */
  end(): Promise<void>
}

/** Tells the control plane how far a build is, now and then. What can't be told is told with the next. */
export function tellProgress(
  { jobId, fence }: Pick<BuildClaim, 'jobId' | 'fence'>,
  { link, log }: { link: Pick<Link, 'call'>; log: Pick<Logger, 'debug'> },
): Teller {
  let lines = ''
  let taken = 0
  let room = Promise.withResolvers<void>()
  let last: Progress = { progress: 0, step: 'Starting' }
  let fresh = true
  const over = new AbortController()

  /** @returns whether it was told */
  async function tell(): Promise<boolean> {
    fresh = false
    const sent = lines.slice(0, reportChars)
    try {
      const body = { fence, ...last, log: sent }
      await link.call('reportBuild', { params: { jobId }, body })
      lines = lines.slice(sent.length)
      fresh ||= lines.length > 0
      if (lines.length < waitingChars) makeRoom()
      return true
    } catch (error) {
      log.debug({ err: error, jobId }, "A build's progress was not told")
      // A refusal will not change; the heartbeat says why.
      if (error instanceof LinkError && !error.passing) over.abort()
      else fresh = true
      return false
    }
  }

  function makeRoom() {
    room.resolve()
    room = Promise.withResolvers()
  }

  async function run() {
    while (!over.signal.aborted) {
      const told = fresh && (await tell())
      const wait = told && lines.length > reportChars ? 0 : reportEveryMs
      // Woken by the end.
      await sleep(wait, undefined, { signal: over.signal }).catch(() => undefined)
    }
    makeRoom()
  }
  const running = run()

  return {
    onProgress(progress) {
      last = progress
      fresh = true
    },
    async onLine(line) {
      if (taken > logChars) return
      taken += line.length + 1
      lines += taken > logChars ? `[paws: what came after the first ${logChars} characters was dropped]\n` : `${line}\n`
      fresh = true
      if (lines.length > waitingChars && !over.signal.aborted) await room.promise
    },
    async end() {
      over.abort()
      await running
      // The first that can't be told is the last.
      while (lines.length > 0 && (await tell()));
    },
  }
}
