import { createHash } from 'node:crypto'
import { copyFile, mkdir, readFile, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { SnapshotManifest } from '@paws/api'
import { readAptSettings, sourcesFile } from '../machine/apt.ts'
import { openToRange, runInRange } from '../sandbox/id-range.ts'
import { followProgress, type Progress } from './build-progress.ts'
import type { HeldSnapshot, SnapshotStore } from './store.ts'
import { readTemplate, type Template } from './template.ts'
import { sha256OfFile } from './verify.ts'

export interface BuildOptions {
  /** Where the result is put */
  store: SnapshotStore
  /** The folder `snapshots/` that paws ships with */
  templatesDir: string
  snapshotId: string
  template: string
  onProgress: (progress: Progress) => void
  /** One line of the log, without its end */
  onLine: (line: string) => void
  signal?: AbortSignal
}

export interface Built extends HeldSnapshot {
  /** Of all its files */
  sizeBytes: number
}

/**
 * Builds a snapshot from a template and keeps it in this worker's store.
 * Two builds of the same template from the same packages have the same digest.
 *
 * @throws with what the failing program said last; nothing is left then
 */
export async function buildSnapshot(options: BuildOptions): Promise<Built> {
  const { store, onProgress } = options
  const template = await readTemplate(options.templatesDir, options.template)
  const made = await store.staging.make()
  try {
    onProgress({ progress: 0, step: 'Preparing' })
    await assemble(made, template, options)
    const squashfs = join(made, 'rootfs.squashfs')
    const { size } = await stat(squashfs)
    const files = { 'rootfs.squashfs': { sha256: await sha256OfFile(squashfs), sizeBytes: size } }
    const manifest = Buffer.from(manifestText(options.snapshotId, template, await facts(made), files))
    const digest = `sha256:${createHash('sha256').update(manifest).digest('hex')}`
    await writeFile(join(made, 'manifest.json'), manifest)
    onProgress({ progress: 0.95, step: 'Unpacking the image' })
    const held = await store.adopt(digest, made)
    return { ...held, sizeBytes: size + manifest.length }
  } finally {
    await store.staging.remove(made)
  }
}

async function assemble(made: string, template: Template, { store, onProgress, onLine, signal }: BuildOptions) {
  const { suite, packages } = template.manifest
  const apt = await readAptSettings()
  await mkdir(join(made, 'template'))
  await writeFile(join(made, 'template/setup.sh'), template.setup)
  await writeFile(join(made, 'build.sources'), sourcesFile(suite, apt.mirrors, { shown: false }))
  await writeFile(join(made, 'shown.sources'), sourcesFile(suite, apt.mirrors, { shown: true }))
  await writeFile(join(made, 'apt.conf'), ['Acquire::Languages "none";', ...apt.conf, ''].join('\n'))
  await copyFile(join(import.meta.dirname, 'assemble.sh'), join(made, 'assemble.sh'))
  await openToRange(made)
  const follow = followProgress(onProgress)
  await runInRange(store.ids, ['sh', 'assemble.sh', suite, packages.join(',')], {
    cwd: made,
    signal,
    onLine: (line) => {
      follow(line)
      onLine(line)
    },
  })
}

interface Facts {
  packages: Record<string, string>
  architecture: string
}

async function facts(made: string): Promise<Facts> {
  const text = await readFile(join(made, 'packages.txt'), 'utf8')
  const packages = text
    .trim()
    .split('\n')
    .sort()
    .map((line) => line.split('\t') as [string, string])
  const architecture = (await readFile(join(made, 'architecture.txt'), 'utf8')).trim()
  return { packages: Object.fromEntries(packages), architecture }
}

function manifestText(
  id: string,
  template: Template,
  { packages, architecture }: Facts,
  files: SnapshotManifest['files'],
) {
  const manifest: SnapshotManifest = {
    format: 1,
    id,
    template: { id: template.id, sha256: template.sha256 },
    architecture,
    env: template.manifest.env,
    packages,
    files,
  }
  return `${JSON.stringify(manifest, null, 2)}\n`
}
