import { spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { mkdir, readFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pino } from 'pino'
import { openIdMap } from '../../sandbox/id-map.ts'
import { type BuildOptions, buildSnapshot, type HeldSnapshot, openSnapshotStore } from '../index.ts'

export const templatesDir = join(import.meta.dirname, '../../../../../snapshots')

const nothing = () => undefined

/** How `minimal` is built: of packages, so without a sandbox. */
export const minimalBuild: Omit<BuildOptions, 'store'> = {
  templatesDir,
  order: { snapshotId: 'minimal', template: 'minimal', config: null, base: null },
  driver: {
    start: async () => {
      throw new Error('minimal needs no sandbox')
    },
  },
  onProgress: nothing,
  onLine: nothing,
  log: pino({ level: 'silent' }),
}

/** The built-in template `minimal`, built for real, once a machine and state of the template and its builder. */
export async function minimalImage(): Promise<HeldSnapshot> {
  const dataDir = join(tmpdir(), `paws-minimal-${await contentHash()}`)
  await mkdir(dataDir, { recursive: true, mode: 0o711 })
  const unlock = await lock(join(dataDir, 'lock'))
  try {
    const store = await openSnapshotStore({
      dataDir,
      log: pino({ level: 'silent' }),
      fetchFile: async (digest) => {
        throw new Error(`${digest} is damaged in ${dataDir}: remove that folder`)
      },
    })
    const [digest] = await store.held()
    if (digest) return await store.ensure(digest)
    return await buildSnapshot({ ...minimalBuild, store })
  } finally {
    unlock()
  }
}

// Of what decides how an image turns out, so that other work on this room doesn't build it again.
async function contentHash(): Promise<string> {
  const builder = join(import.meta.dirname, '../making')
  const template = join(templatesDir, 'minimal')
  const { uid, gid } = await openIdMap()
  const hash = createHash('sha256').update(`${process.getuid?.()} ${uid} ${gid}`)
  for (const file of [
    join(builder, 'assemble.sh'),
    join(builder, 'assemble.ts'),
    join(template, 'manifest.json'),
    join(template, 'setup.sh'),
  ]) {
    hash.update(await readFile(file))
  }
  return hash.digest('hex').slice(0, 16)
}

/** Waits for a lock that ends with this process, however that ends. */
export async function lock(file: string): Promise<() => void> {
  const holder = spawn('flock', [file, 'sh', '-c', 'echo held && cat'], { stdio: ['pipe', 'pipe', 'inherit'] })
  await Promise.race([
    once(holder.stdout, 'data'),
    once(holder, 'close').then(() => {
      throw new Error(`flock gave no lock on ${file}`)
    }),
  ])
  return () => holder.stdin.end()
}
