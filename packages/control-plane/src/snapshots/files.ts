import { createHash } from 'node:crypto'
import { Readable } from 'node:stream'
import { buffer } from 'node:stream/consumers'
import { manifestLimitBytes, SnapshotDigest, SnapshotManifest } from '@paws/api'
import { sql } from 'kysely'
import type { Blobs, StoredBlob } from '../blobs/index.ts'
import type { Database } from '../database/index.ts'
import { ApiError } from '../errors.ts'

const files = ['manifest.json', 'rootfs.squashfs'] as const
export type SnapshotFile = (typeof files)[number]

/** Which file of which snapshot a path names. @throws SNAPSHOT_NOT_FOUND for what can't be one */
export function parseFile(params: { digest: string; file: string }): { digest: string; file: SnapshotFile } {
  const file = files.find((name) => name === params.file)
  if (!file || !SnapshotDigest.safeParse(params.digest).success) throw fileNotFound(params)
  return { digest: params.digest, file }
}

const keyOf = (digest: string, file: string) => `snapshots/${digest.slice('sha256:'.length)}/${file}`
/** Says what the file beside it is: the manifest that names its digest comes later. */
const measured = (file: string) => `${file}.measured`

/**
 * Stores a file of a snapshot while it comes. The manifest completes the snapshot; from then on nothing of it changes.
 *
 * @throws CONFLICT, naming both digests, when the manifest or what it lists is something else
 */
export async function putSnapshotFile(
  blobs: Blobs,
  digest: string,
  file: SnapshotFile,
  content: Readable,
): Promise<void> {
  if (await blobs.has(keyOf(digest, 'manifest.json'))) {
    content.destroy()
    return
  }
  if (file === 'manifest.json') return putManifest(blobs, digest, await limited(content))
  // What began to come before the manifest may end after it, and must not take the place of what that has named.
  let late = false
  async function* whileUnfinished() {
    yield* content
    late = await blobs.has(keyOf(digest, 'manifest.json'))
    if (late) throw new Error(`${digest} was completed while its ${file} came once more`)
  }
  const pieces = Readable.from(whileUnfinished(), { objectMode: false })
  const stored = await blobs.put(keyOf(digest, file), pieces).catch((error: unknown) => {
    if (!late) throw error
  })
  if (!stored) return
  await blobs.put(keyOf(digest, measured(file)), Readable.from([Buffer.from(JSON.stringify(stored))]))
}

async function putManifest(blobs: Blobs, digest: string, bytes: Buffer): Promise<void> {
  const found = `sha256:${createHash('sha256').update(bytes).digest('hex')}`
  if (found !== digest) throw new ApiError('CONFLICT', `The manifest should have the digest ${digest} and has ${found}`)
  const manifest = parseManifest(bytes)
  for (const [file, listed] of Object.entries(manifest.files)) {
    const blob = await blobs.get(keyOf(digest, measured(file)))
    if (!blob) throw new ApiError('CONFLICT', `${file} of ${digest} is not stored yet: the manifest comes last`)
    const stored: StoredBlob = JSON.parse((await buffer(blob.content)).toString())
    if (stored.sha256 !== listed.sha256 || stored.sizeBytes !== listed.sizeBytes) {
      throw new ApiError(
        'CONFLICT',
        `${file} of ${digest} should have the SHA-256 ${listed.sha256} (${listed.sizeBytes} bytes) ` +
          `and has ${stored.sha256} (${stored.sizeBytes} bytes)`,
      )
    }
  }
  await blobs.put(keyOf(digest, 'manifest.json'), Readable.from([bytes]), { sha256: digest.slice('sha256:'.length) })
}

async function limited(content: Readable): Promise<Buffer> {
  const chunks: Buffer[] = []
  let size = 0
  for await (const chunk of content as AsyncIterable<Buffer>) {
    size += chunk.length
    if (size > manifestLimitBytes) throw new ApiError('CONFLICT', `A manifest has at most ${manifestLimitBytes} bytes`)
    chunks.push(chunk)
  }
  return Buffer.concat(chunks)
}

function parseManifest(bytes: Buffer): SnapshotManifest {
  let value: unknown
  try {
    value = JSON.parse(bytes.toString())
  } catch (cause) {
    throw new ApiError('CONFLICT', 'The manifest is not JSON', { cause })
  }
  const parsed = SnapshotManifest.safeParse(value)
  if (!parsed.success) throw new ApiError('CONFLICT', `The manifest is wrong: ${parsed.error.message}`)
  return parsed.data
}

/** The manifest of a snapshot that is stored completely, else undefined. */
export async function readManifest(blobs: Blobs, digest: string): Promise<SnapshotManifest | undefined> {
  const blob = await blobs.get(keyOf(digest, 'manifest.json'))
  return blob && parseManifest(await buffer(blob.content))
}

/**
 * A file for a worker: of a shared snapshot, or of an organization one of whose sessions it runs.
 *
 * @throws SNAPSHOT_NOT_FOUND
 */
export async function getSnapshotFile(
  { db, blobs }: { db: Database; blobs: Blobs },
  workerId: string,
  digest: string,
  file: SnapshotFile,
): Promise<{ size: number; content: Readable }> {
  // Builds and not snapshots are asked: a session may have been claimed just before a newer version came.
  const { rows } = await sql`
    select from builds b where b.digest = ${digest} and b.status = 'ready' and (b.org_id is null or exists (
      select from sessions s where s.worker_id = ${workerId} and s.status = 'running' and s.org_id = b.org_id
    )) limit 1`.execute(db)
  const blob = rows.length > 0 ? await blobs.get(keyOf(digest, file)) : undefined
  if (!blob) throw fileNotFound({ digest, file })
  return blob
}

function fileNotFound({ digest, file }: { digest: string; file: string }): ApiError {
  return new ApiError('SNAPSHOT_NOT_FOUND', `There is no file "${file}" of a snapshot "${digest}"`)
}
