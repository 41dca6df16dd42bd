import { randomUUID } from 'node:crypto'
import { egressReasons } from '@paws/api'
import type { Logger } from 'pino'
import { exitCodeOf, startScript } from '../../sandbox/command.ts'
import type { Driver, Sandbox } from '../../sandbox/driver.ts'
import { furnish } from '../../sandbox/furnish.ts'
import type { RecordSink } from '../../sandbox/outlet.ts'
import type { SnapshotStore } from '../store.ts'
import type { Facts } from './assemble.ts'
import type { Progress } from './build-progress.ts'
import { cleanUp, readBundle, readPackages } from './clean.ts'
import { extractImage } from './extract.ts'
import { eachLine, type OnLine } from './lines.ts'
import type { SetupRecipe } from './recipe.ts'

export interface SetupOptions {
  store: Pick<SnapshotStore, 'ids'>
  driver: Pick<Driver, 'start'>
  onProgress: (progress: Progress) => void
  onLine: OnLine
  log: Pick<Logger, 'warn'>
  signal?: AbortSignal
  /** How long a setup may run; an hour unless given */
  setupLimitMs?: number
}

/** How long cleaning up and packing may take. */
const extractLimitMs = 30 * 60_000
/** How much of what a setup said last stands in the reason of its failure, in characters. */
const mostSaid = 2_000

/**
 * Runs a setup in a sandbox of its base, and makes `rootfs.squashfs` in the folder `made` of what it leaves. Nothing of
 * the sandbox is opened from outside of it.
 *
 * @throws with what the setup said last when it fails; nothing of its sandbox is left then
 */
export async function buildInSandbox(made: string, recipe: SetupRecipe, options: SetupOptions): Promise<Facts> {
  const { driver, onProgress, signal, setupLimitMs = 60 * 60_000 } = options
  onProgress({ progress: 0.06, step: 'Starting a sandbox' })
  const { imageDir } = recipe.base
  const sandbox = await driver.start({ id: randomUUID(), imageDir, ...recipe.resources, hostname: 'paws-build' })
  const over = new AbortController()
  // Whoever waits for something inside hears that the sandbox is lost; how it ends is awaited below.
  const stop = () => void sandbox.stop().catch(() => undefined)
  over.signal.addEventListener('abort', stop)
  const follow = () => over.abort(signal?.reason)
  signal?.addEventListener('abort', follow)
  if (signal?.aborted) follow()
  const within = <T>(limitMs: number, what: string, work: Promise<T>): Promise<T> => {
    const late = new Error(`${what} took longer than ${Math.ceil(limitMs / 60_000)} minutes.`)
    const timer = setTimeout(() => over.abort(late), limitMs)
    return work.finally(() => clearTimeout(timer))
  }
  try {
    const before = await prepare(sandbox, recipe, options)
    onProgress({ progress: 0.1, step: 'Running the setup' })
    await within(setupLimitMs, 'The setup', runSetup(sandbox, recipe, before.env, options.onLine))
    return await within(
      extractLimitMs,
      'Making the image',
      extract(sandbox, made, recipe, before, options, over.signal),
    )
  } catch (error) {
    if (over.signal.aborted) throw over.signal.reason
    throw (await lossOf(sandbox, error)) ?? error
  } finally {
    signal?.removeEventListener('abort', follow)
    await sandbox.stop()
  }
}

interface Before {
  certificate: string
  /** The system's store of certificates as the base has it */
  bundle: Buffer
  env: Record<string, string>
}

/** Opens the way out as far as the recipe asks for it. */
async function prepare(sandbox: Sandbox, recipe: SetupRecipe, { onLine, log }: SetupOptions): Promise<Before> {
  const rules = { allowOut: recipe.requiredDomains, credentials: {}, auditLog: false }
  const inlay = await sandbox.outlet.allow(rules, refusalsAsLines(onLine))
  const bundle = await readBundle(sandbox)
  const { env, placed } = furnish(sandbox, inlay, log)
  await placed
  return { certificate: inlay.certificate, bundle, env }
}

async function extract(
  sandbox: Sandbox,
  made: string,
  { base, resources }: SetupRecipe,
  { bundle, certificate }: Before,
  { store, onProgress, onLine }: SetupOptions,
  signal: AbortSignal,
): Promise<Facts> {
  onProgress({ progress: 0.7, step: 'Cleaning up' })
  await sandbox.outlet.close()
  await cleanUp(sandbox, bundle, onLine)
  const packages = await readPackages(sandbox)
  onProgress({ progress: 0.75, step: 'Making the image' })
  const { imageDir } = base
  await extractImage(sandbox, made, { ids: store.ids, imageDir, diskMB: resources.diskMB, certificate, onLine, signal })
  return { packages, architecture: base.manifest.architecture }
}

/** Rejects unless the setup ends well. */
async function runSetup(
  sandbox: Sandbox,
  { setup, env }: SetupRecipe,
  outletEnv: Record<string, string>,
  onLine: OnLine,
): Promise<void> {
  let said = ''
  const hear = (line: string) => {
    said = `${said}${line}\n`.slice(-mostSaid)
    return onLine(line)
  }
  const process = await startScript(sandbox, setup, { ...env, ...outletEnv })
  const output = Promise.all([eachLine(process.stdout, hear), eachLine(process.stderr, hear)])
  // It is awaited only after the exit, and may fail before that.
  output.catch(() => undefined)
  const exitCode = exitCodeOf(await process.exit)
  await output
  if (exitCode !== 0) throw new Error(`The setup ended with exit code ${exitCode}: ${said.trim() || 'it said nothing'}`)
}

/** So many hosts that were refused are named in a build's log. */
const mostRefusals = 200

/** What did not get out is the likeliest reason of a failing setup: each host is named once, with the remedy. */
function refusalsAsLines(onLine: OnLine): RecordSink {
  const told = new Set<string>()
  return async (records) => {
    for (const { decision, reason, host = 'an address that no allowed name has' } of records) {
      const key = `${host} ${reason}`
      if (decision === 'allowed' || !reason || told.has(key) || told.size === mostRefusals) continue
      told.add(key)
      const remedy = reason === 'name-not-allowed' ? '; add it to requiredDomains' : `: ${egressReasons[reason]}`
      await onLine(`refused: ${host} (${reason})${remedy}`)
    }
  }
}

/** Why the sandbox is gone, as the reason of a build's failure; nothing while it is still there. */
async function lossOf({ gone }: Sandbox, cause: unknown): Promise<Error | undefined> {
  const still = new Promise<undefined>((resolve) => setTimeout(resolve, 1_000, undefined).unref())
  const lost = await Promise.race([gone, still])
  return lost && new Error(`The sandbox of the build was lost: ${lost.reason}`, { cause })
}
