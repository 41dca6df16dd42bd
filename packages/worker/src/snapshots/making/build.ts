import { createHash } from 'node:crypto'
import { stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { SnapshotManifest } from '@paws/api'
import type { Logger } from 'pino'
import type { Driver } from '../../sandbox/driver.ts'
import type { HeldSnapshot, SnapshotStore } from '../store.ts'
import { sha256OfFile } from '../verify.ts'
import { assemble, type Facts } from './assemble.ts'
import type { Progress } from './build-progress.ts'
import type { OnLine } from './lines.ts'
import { type BuildOrder, type Recipe, readRecipe } from './recipe.ts'
import { buildInSandbox } from './setup.ts'

export interface BuildOptions {
  /** Where the result is put, and what it is made from comes from */
  store: SnapshotStore
  /** Makes the sandboxes that setups run in */
  driver: Pick<Driver, 'start'>
  /** The folder `snapshots/` that paws ships with */
  templatesDir: string
  order: BuildOrder
  onProgress: (progress: Progress) => void
  /** One line of the log, without its end. A setup waits until it has resolved */
  onLine: OnLine
  log: Pick<Logger, 'warn'>
  signal?: AbortSignal
  /** How long a setup may run; an hour unless given */
  setupLimitMs?: number
}

export interface Built extends HeldSnapshot {
  /** Of all its files */
  sizeBytes: number
}

/**
 * Builds a snapshot and keeps it in this worker's store.
 * Two builds of the same template from the same packages have the same digest.
 *
 * @throws with what the failing program said last; nothing is left then
 */
export async function buildSnapshot(options: BuildOptions): Promise<Built> {
  const { store, order, onProgress } = options
  onProgress({ progress: 0, step: order.base ? 'Fetching the base' : 'Preparing' })
  const recipe = await readRecipe(order, options.templatesDir, store)
  const made = await store.staging.make()
  try {
    const facts = await ('base' in recipe ? buildInSandbox(made, recipe, options) : assemble(made, recipe, options))
    const squashfs = join(made, 'rootfs.squashfs')
    const { size } = await stat(squashfs)
    const files = { 'rootfs.squashfs': { sha256: await sha256OfFile(squashfs), sizeBytes: size } }
    const manifest = Buffer.from(manifestText(order.snapshotId, recipe, facts, files))
    const digest = `sha256:${createHash('sha256').update(manifest).digest('hex')}`
    await writeFile(join(made, 'manifest.json'), manifest)
    onProgress({ progress: 0.95, step: 'Unpacking the image' })
    const held = await store.adopt(digest, made)
    return { ...held, sizeBytes: size + manifest.length }
  } finally {
    await store.staging.remove(made)
  }
}

function manifestText(id: string, { origin, env }: Recipe, facts: Facts, files: SnapshotManifest['files']): string {
  const { packages, architecture } = facts
  const manifest: SnapshotManifest = { format: 1, id, ...origin, architecture, env, packages, files }
  return `${JSON.stringify(manifest, null, 2)}\n`
}
