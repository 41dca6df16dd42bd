import { createReadStream } from 'node:fs'
import { mkdir, readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { Readable } from 'node:stream'
import { SnapshotDigest, type SnapshotManifest } from '@paws/api'
import type { Logger } from 'pino'
import { type IdMap, openIdMap } from '../sandbox/id-map.ts'
import { closeToRange, openToRange, runInRange } from '../sandbox/id-range.ts'
import { confined } from './confined.ts'
import { openStaging, place, type Staging } from './staging.ts'
import { parseManifest, receive, SnapshotCorrupt, type SnapshotFile, sha256OfFile } from './verify.ts'

/** A snapshot on this worker, verified and unpacked. */
export interface HeldSnapshot {
  digest: string
  /** Unpacked; its files belong to the sandboxes' ids */
  imageDir: string
  /** The same as it was fetched */
  squashfs: string
  manifest: SnapshotManifest
}

/** Brings a file of a snapshot; rejects when there is none. */
export type FetchFile = (digest: string, file: SnapshotFile, signal: AbortSignal) => Promise<Readable>

/** The snapshots that this worker holds, each in a folder named by its digest that is never changed. */
export interface SnapshotStore {
  /** Brings a snapshot here unless it is; callers at the same time share one fetching. Rejects with SnapshotCorrupt */
  ensure(digest: string): Promise<HeldSnapshot>
  /** The same for one that was built here: verified and unpacked like any other, only not fetched */
  adopt(digest: string, directory: string): Promise<HeldSnapshot>
  /** Digests of what is unpacked, for the worker's state */
  held(): Promise<string[]>
  /** Ids that unpacked files belong to */
  readonly ids: IdMap
  readonly staging: Staging
  /** Gives up what is being fetched */
  close(): Promise<void>
}

export interface StoreOptions {
  /** The worker's data folder; sandboxes' ids must be able to pass it unless the driver enters it first */
  dataDir: string
  fetchFile: FetchFile
  log: Logger
}

export async function openSnapshotStore({ dataDir, fetchFile, log }: StoreOptions): Promise<SnapshotStore> {
  const root = join(dataDir, 'snapshots')
  await mkdir(root, { recursive: true, mode: 0o711 })
  const ids = await openIdMap()
  const staging = await openStaging(join(root, '.staging'), ids)
  const stop = new AbortController()
  const coming = new Map<string, Promise<HeldSnapshot>>()
  const opened = new Map<string, HeldSnapshot>()

  function once(digest: string, fetch: FetchFile): Promise<HeldSnapshot> {
    const shared = coming.get(digest)
    if (shared) return shared
    const bringing = bring(digest, fetch).finally(() => coming.delete(digest))
    coming.set(digest, bringing)
    return bringing
  }

  async function bring(digest: string, fetch: FetchFile): Promise<HeldSnapshot> {
    const at = join(root, folderOf(digest))
    const held = opened.get(digest) ?? (await open(digest, at))
    if (held) {
      opened.set(digest, held)
      return held
    }
    // What came damaged once may have been damaged on its way; twice, it is stored so.
    const placed = await unpack(digest, at, fetch).catch((error: unknown) => {
      if (!(error instanceof SnapshotCorrupt)) throw error
      log.warn({ err: error, digest }, 'a snapshot came damaged, fetching it once more')
      return unpack(digest, at, fetch)
    })
    opened.set(digest, placed)
    return placed
  }

  /** What an earlier process unpacked, checked again before this one relies on it. */
  async function open(digest: string, at: string): Promise<HeldSnapshot | undefined> {
    const bytes = await readFile(join(at, 'manifest.json')).catch((error: NodeJS.ErrnoException) => {
      if (error.code === 'ENOENT') return undefined
      throw error
    })
    if (!bytes) return undefined
    try {
      const manifest = parseManifest(digest, bytes)
      const { sha256 } = manifest.files['rootfs.squashfs']
      const found = await sha256OfFile(join(at, 'rootfs.squashfs'))
      if (found !== sha256)
        throw new SnapshotCorrupt(digest, `rootfs.squashfs here has SHA-256 ${found}, not ${sha256}`)
      return heldAt(digest, at, manifest)
    } catch (error) {
      if (!(error instanceof SnapshotCorrupt)) throw error
      log.warn({ err: error, digest }, 'a snapshot held here is damaged, fetching it again')
      // Moved aside at once: a sandbox that runs from it keeps its files, and nothing new starts from them.
      const aside = await staging.make()
      await place(at, aside)
      await staging.remove(aside)
      return undefined
    }
  }

  async function unpack(digest: string, at: string, fetch: FetchFile): Promise<HeldSnapshot> {
    const made = await staging.make()
    try {
      const manifest = await receive(digest, made, (file) => fetch(digest, file, stop.signal))
      await openToRange(made)
      const unsquash = ['unsquashfs', '-quiet', '-no-progress', '-dest', 'rootfs', 'rootfs.squashfs']
      await runInRange(ids, confined(unsquash), { name: 'unsquashfs', cwd: made, signal: stop.signal })
      await closeToRange(made)
      if (await place(made, at)) log.info({ digest, snapshot: manifest.id }, 'a snapshot is here')
      return heldAt(digest, at, manifest)
    } finally {
      // Also after it was placed: then there is nothing left to remove.
      await staging.remove(made).catch(ignoreAbsent)
    }
  }

  return {
    ids,
    staging,
    ensure: (digest) => once(digest, fetchFile),
    adopt: (digest, directory) => once(digest, async (_, file) => createReadStream(join(directory, file))),
    async held() {
      const names = await readdir(root)
      return names.filter((name) => /^[0-9a-f]{64}$/.test(name)).map((name) => `sha256:${name}`)
    },
    async close() {
      stop.abort(new Error('The worker is closing'))
      await Promise.allSettled(coming.values())
    },
  }
}

// Without "sha256:": a colon would end the path in overlayfs' options.
function folderOf(digest: string): string {
  if (!SnapshotDigest.safeParse(digest).success) throw new Error(`"${digest}" is no digest of a snapshot`)
  return digest.slice('sha256:'.length)
}

function heldAt(digest: string, at: string, manifest: SnapshotManifest): HeldSnapshot {
  return { digest, imageDir: join(at, 'rootfs'), squashfs: join(at, 'rootfs.squashfs'), manifest }
}

function ignoreAbsent(error: NodeJS.ErrnoException): void {
  if (error.code !== 'ENOENT') throw error
}
