import type { Logger } from 'pino'
import type { SessionClaim } from '../link/claims.ts'
import { LinkError } from '../link/client.ts'
import type { Outcome } from '../link/journal.ts'
import type { Report } from '../link/report.ts'
import { exitCodeOf, startScript } from '../sandbox/command.ts'
import { type Driver, type Process, type Sandbox, SandboxLost } from '../sandbox/driver.ts'
import { furnish } from '../sandbox/furnish.ts'
import { type Inlay, type Outlet, PresetUnavailable } from '../sandbox/outlet.ts'
import { keepRecords } from './records.ts'
import { readResult } from './result.ts'

/** How a session ended; its duration is added by who measures it. */
type Ending = Omit<Outcome, 'durationMs'>

/** Why a session ends before its script does. */
export type Cause = 'timeout' | 'cancelled' | 'lost' | 'out-of-contact' | 'stopped' | 'unreportable'

const untimely = {
  timeout: { status: 'timeout' },
  cancelled: { status: 'cancelled' },
  lost: { status: 'failed' },
  'out-of-contact': failure(
    'WORKER_OUT_OF_CONTACT',
    'The worker could not reach the control plane for so long that it stopped the session.',
  ),
  stopped: failure('WORKER_STOPPED', 'The worker was stopped while the session ran. Start the session again.'),
  unreportable: failure('WORKER_FAILED', "The worker could not keep the session's output. Its log says why."),
} satisfies Record<Cause, Ending>

/** SIGTERM, then so long until SIGKILL. */
const graceMs = 5_000

/** What a session needs of the snapshots that this worker holds. */
export interface Snapshots {
  ensure(digest: string): Promise<{ imageDir: string; manifest: { env: Record<string, string> } }>
}

/** A sandbox, and the environment of what its session runs in it. */
export interface Inside {
  sandbox: Sandbox
  env: Record<string, string>
  /** Resolves when what its way out needs is in place; an `exec` needn't wait for it */
  placed: Promise<void>
}

export interface RunOptions {
  claim: SessionClaim
  driver: Pick<Driver, 'start'>
  snapshots: Snapshots
  /** May come while the sandbox starts */
  report: Promise<Report>
  log: Logger
}

/** One session while it runs here. */
export interface Run {
  /** Resolves once the sandbox has started; with nothing when it never will */
  readonly inside: Promise<Inside | undefined>
  /** Ends it for this cause, unless it is ending already. */
  end(cause: Cause): void
  /** Resolves with how it ended, as soon as that is settled, and why it did if not by itself; never rejects */
  readonly outcome: Promise<{ outcome: Outcome; cause: Cause | undefined }>
  /** Resolves when nothing of its sandbox is left; never rejects */
  readonly gone: Promise<void>
}

/** Runs a claimed session in a sandbox of its own. Whatever goes wrong becomes its outcome. */
export function runSession(options: RunOptions): Run {
  const { claim, log } = options
  const inside = Promise.withResolvers<Inside | undefined>()
  const ended = Promise.withResolvers<Cause>()
  let cause: Cause | 'exit' | undefined
  let begunAt = performance.now()

  const stop = async (started: Inside | undefined, grace: number) => {
    const failed = (error: unknown) => log.error({ err: error, sessionId: claim.sessionId }, 'A sandbox left something')
    await started?.sandbox.stop({ graceMs: grace }).catch(failed)
  }

  async function attempt(): Promise<Ending> {
    const early = ended.promise.then((why) => untimely[why])
    const started = await startSandbox(options, early)
    begunAt = performance.now()
    if ('status' in started) {
      inside.resolve(undefined)
      return started
    }
    inside.resolve(started)
    const stopped = ended.promise.then(() => stop(started, graceMs))
    const timer = setTimeout(() => end('timeout'), claim.timeoutMs)
    const ending = await followScript(started, options)
    clearTimeout(timer)
    cause ??= 'exit'
    if (cause === 'exit') {
      // What is still on its way out breaks off now, and is recorded before the end is reported.
      await started.sandbox.outlet.close()
      return ending
    }
    await stopped
    return untimely[cause]
  }

  function end(why: Cause) {
    if (cause) return
    cause = why
    ended.resolve(why)
  }

  const outcome = attempt().then((ending) => ({
    outcome: { ...ending, durationMs: Math.round(performance.now() - begunAt) },
    cause: cause === 'exit' ? undefined : cause,
  }))
  const gone = outcome.then(async () => stop(await inside.promise, 0))
  return { inside: inside.promise, end, outcome, gone }
}

/** @returns how it ended where there will be no sandbox */
async function startSandbox(options: RunOptions, early: Promise<Ending>): Promise<Inside | Ending> {
  const { claim, driver, snapshots, log } = options
  try {
    const snapshot = await Promise.race([snapshots.ensure(claim.snapshot.digest), early])
    if ('status' in snapshot) return snapshot
    const { imageDir, manifest } = snapshot
    const hostname = `paws-${claim.sessionId.slice(0, 8)}`
    const inlay = Promise.withResolvers<Inlay>()
    // Whether there is a sandbox is known first.
    inlay.promise.catch(() => undefined)
    const allow = (outlet: Outlet) =>
      outlet.allow(claim.network, keepRecords(options.report)).then(inlay.resolve, inlay.reject)
    const sandbox = await driver.start({ id: claim.sessionId, imageDir, ...claim.resources, hostname }, allow)
    try {
      const { env, placed } = furnish(sandbox, await inlay.promise, log)
      return { sandbox, placed, env: { ...manifest.env, ...env, ...claim.env, PAWS_SESSION_ID: claim.sessionId } }
    } catch (error) {
      await sandbox.stop()
      throw error
    }
  } catch (error) {
    if (error instanceof PresetUnavailable) return failure('PRESET_UNAVAILABLE', error.message)
    log.error({ err: error, sessionId: claim.sessionId }, 'A sandbox could not be started')
    return failure('SANDBOX_START_FAILED', "The worker could not start a sandbox. The worker's log says why.")
  }
}

/** From the script's start to its end and what it left. A sandbox that goes away meanwhile is an outcome. */
async function followScript(
  { sandbox, env, placed }: Inside,
  { claim, report: coming, log }: RunOptions,
): Promise<Ending> {
  let output: Promise<unknown> = Promise.resolve()
  try {
    const report = await coming
    const process = await startScript(sandbox, claim.script, env)
    await placed
    output = Promise.all([pump(process, 'stdout', report), pump(process, 'stderr', report)])
    // It is awaited only after the exit, and may fail before that.
    output.catch(() => undefined)
    const exitCode = exitCodeOf(await process.exit)
    await output
    const result = await readResult(sandbox)
    return {
      status: exitCode === 0 ? 'completed' : 'failed',
      exitCode,
      ...('refused' in result ? failureOf('OUTPUT_REFUSED', result.refused) : result),
    }
  } catch (error) {
    // What had come until then is part of the record; that the rest didn't come is said below.
    await output.catch(() => undefined)
    const reason = await goneReason(sandbox, error)
    if (reason) return failure('SANDBOX_LOST', reason)
    log.error({ err: error, sessionId: claim.sessionId }, 'A script could not be run')
    return failure('SANDBOX_FAILED', "The sandbox would not run the script. The worker's log says why.")
  }
}

async function pump(process: Process, stream: 'stdout' | 'stderr', report: Report): Promise<void> {
  for await (const bytes of process[stream]) await report.write(stream, bytes as Buffer)
}

/** The kernel may take a while to end what a lost sandbox ran; only then is it known why. */
const farewellMs = 10_000

/** Why the sandbox is gone; nothing while it is still there. */
function goneReason({ gone }: Sandbox, error: unknown): Promise<string | undefined> {
  const patienceMs = error instanceof SandboxLost ? farewellMs : 100
  const still = new Promise<undefined>((resolve) => setTimeout(resolve, patienceMs, undefined).unref())
  return Promise.race([gone.then(({ reason }) => `The sandbox was lost: ${reason}`), still])
}

function failureOf(code: string, message: string) {
  return { error: { code, message: message.slice(0, 4000) } }
}

function failure(code: string, message: string) {
  return { status: 'failed' as const, ...failureOf(code, message) }
}

/** What a report that broke means for the session it is about. */
export function causeOf(broken: Error): Cause {
  return broken instanceof LinkError ? 'lost' : 'unreportable'
}
