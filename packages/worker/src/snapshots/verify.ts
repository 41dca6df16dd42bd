import { createHash } from 'node:crypto'
import { createReadStream, createWriteStream } from 'node:fs'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { type Readable, Transform } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { manifestLimitBytes, SnapshotManifest } from '@paws/api'

export type SnapshotFile = 'manifest.json' | 'rootfs.squashfs'

/** What came or lies here under a digest is something else. */
export class SnapshotCorrupt extends Error {
  override name = 'SnapshotCorrupt'

  constructor(digest: string, what: string, options?: ErrorOptions) {
    super(`Snapshot ${digest} is refused: ${what}`, options)
  }
}

/**
 * Writes a snapshot's two files to a folder, checking each byte against the digests while it comes.
 *
 * @throws SnapshotCorrupt naming what it should have been and what it was
 */
export async function receive(
  digest: string,
  directory: string,
  fetch: (file: SnapshotFile) => Promise<Readable>,
): Promise<SnapshotManifest> {
  const bytes = await collect(digest, await fetch('manifest.json'))
  const manifest = parseManifest(digest, bytes)
  await writeFile(join(directory, 'manifest.json'), bytes, { mode: 0o644 })
  const wanted = manifest.files['rootfs.squashfs']
  const hash = createHash('sha256')
  let size = 0
  const check = new Transform({
    transform(chunk: Buffer, _encoding, done) {
      size += chunk.length
      hash.update(chunk)
      if (size > wanted.sizeBytes)
        done(new SnapshotCorrupt(digest, `rootfs.squashfs is longer than ${wanted.sizeBytes} bytes`))
      else done(null, chunk)
    },
  })
  const file = createWriteStream(join(directory, 'rootfs.squashfs'), { mode: 0o644, flush: true })
  await pipeline(await fetch('rootfs.squashfs'), check, file)
  if (size < wanted.sizeBytes) {
    throw new SnapshotCorrupt(digest, `rootfs.squashfs ended after ${size} of ${wanted.sizeBytes} bytes`)
  }
  const found = hash.digest('hex')
  if (found !== wanted.sha256) {
    throw new SnapshotCorrupt(digest, `rootfs.squashfs has SHA-256 ${found}, its manifest says ${wanted.sha256}`)
  }
  return manifest
}

async function collect(digest: string, content: Readable): Promise<Buffer> {
  const chunks: Buffer[] = []
  let size = 0
  for await (const chunk of content as AsyncIterable<Buffer>) {
    size += chunk.length
    if (size > manifestLimitBytes)
      throw new SnapshotCorrupt(digest, `its manifest is longer than ${manifestLimitBytes} bytes`)
    chunks.push(chunk)
  }
  return Buffer.concat(chunks)
}

export function parseManifest(digest: string, bytes: Buffer): SnapshotManifest {
  const found = `sha256:${createHash('sha256').update(bytes).digest('hex')}`
  if (found !== digest) throw new SnapshotCorrupt(digest, `its manifest has the digest ${found}`)
  const parsed = SnapshotManifest.safeParse(JSON.parse(bytes.toString()))
  if (!parsed.success) {
    throw new Error(
      `Snapshot ${digest} has a manifest that this worker can't read; is the worker older than its builder?`,
      {
        cause: parsed.error,
      },
    )
  }
  return parsed.data
}

export async function sha256OfFile(file: string): Promise<string> {
  const hash = createHash('sha256')
  await pipeline(createReadStream(file), hash)
  return hash.digest('hex')
}
