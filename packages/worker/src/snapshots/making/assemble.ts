import { copyFile, mkdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { readAptSettings, sourcesFile } from '../../machine/apt.ts'
import { openToRange, runInRange } from '../../sandbox/id-range.ts'
import type { SnapshotStore } from '../store.ts'
import { followProgress, type Progress } from './build-progress.ts'
import type { OnLine } from './lines.ts'
import type { PackageRecipe } from './recipe.ts'

/** What is found out about an image while it is made. */
export interface Facts {
  packages: Record<string, string>
  architecture: string
}

export interface AssembleOptions {
  store: Pick<SnapshotStore, 'ids'>
  onProgress: (progress: Progress) => void
  onLine: OnLine
  signal?: AbortSignal
}

/** Makes `rootfs.squashfs` in the folder `made` from Debian's packages, outside of any sandbox: for paws' own recipes. */
export async function assemble(
  made: string,
  { suite, packages, setup }: PackageRecipe,
  { store, onProgress, onLine, signal }: AssembleOptions,
): Promise<Facts> {
  const apt = await readAptSettings()
  await mkdir(join(made, 'template'))
  await writeFile(join(made, 'template/setup.sh'), setup)
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
      void onLine(line)
    },
  })
  const installed = await readFile(join(made, 'packages.txt'), 'utf8')
  const architecture = (await readFile(join(made, 'architecture.txt'), 'utf8')).trim()
  return { packages: parsePackages(installed), architecture }
}

/** @param text lines of a package's name, a tab and its version */
export function parsePackages(text: string): Record<string, string> {
  const lines = text.split('\n').filter((line) => line.includes('\t'))
  return Object.fromEntries(lines.sort().map((line) => line.split('\t', 2) as [string, string]))
}
