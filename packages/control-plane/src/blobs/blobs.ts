import { createHash } from 'node:crypto'
import { type Readable, Transform } from 'node:stream'

/** What a stored blob turned out to be. */
export interface StoredBlob {
  sizeBytes: number
  /** 64 hex digits */
  sha256: string
}

/** The seam to storage of whatever is large. Keys are path-like; a blob is there whole or not at all. */
export interface Blobs {
  /** Stores the stream under the key, in place of what was there. Rejects with WrongDigest, and stores nothing, if its SHA-256 is another */
  put(key: string, content: Readable, options?: { sha256?: string }): Promise<StoredBlob>
  /** @returns undefined when there is none; else `content` must be read or destroyed */
  get(key: string): Promise<{ size: number; content: Readable } | undefined>
  has(key: string): Promise<boolean>
  /** Also when there is none */
  delete(key: string): Promise<void>
  close(): void
}

/** What came is not what was announced. */
export class WrongDigest extends Error {
  override name = 'WrongDigest'
  readonly expected: string
  readonly found: string

  constructor(key: string, expected: string, found: string) {
    super(`${key} should have the SHA-256 ${expected} and has ${found}`)
    this.expected = expected
    this.found = found
  }
}

/** Passes bytes through while it measures them; ends with WrongDigest instead of its end when they are others. */
export function measure(key: string, expected?: string): { through: Transform; stored: () => StoredBlob } {
  const hash = createHash('sha256')
  let sizeBytes = 0
  let sha256 = ''
  const through = new Transform({
    transform(chunk: Buffer, _encoding, done) {
      sizeBytes += chunk.length
      hash.update(chunk)
      done(null, chunk)
    },
    flush(done) {
      sha256 = hash.digest('hex')
      done(expected !== undefined && expected !== sha256 ? new WrongDigest(key, expected, sha256) : null)
    },
  })
  return { through, stored: () => ({ sizeBytes, sha256 }) }
}

const part = /^[A-Za-z0-9][A-Za-z0-9._-]*$/

/** Keys come from digests and ids, but a path outside of the storage must be impossible whatever they are. */
export function checkKey(key: string): void {
  if (key.length > 500 || !key.split('/').every((name) => part.test(name))) {
    throw new TypeError(`${JSON.stringify(key)} can't be the key of a blob`)
  }
}
