import { pipeline, Readable, type Transform } from 'node:stream'
import { constants, createBrotliDecompress, createGunzip, createInflate, createZstdDecompress } from 'node:zlib'
import { type Escape, openSwap, type Placeholders, type Swap } from './scrub/index.ts'

/** Up to here a body that changes is taken whole, so that it still goes out with its length: not all hosts do without. */
const MOST_WHOLE_BYTES = 1_048_576

/**
 * A request's body on its way out. It stands between client and host because undici ends the body when the host breaks
 * off, and the client's connection must outlive that to be told.
 */
export class SentBody extends Readable {
  /** As they came */
  bytes = 0
  readonly #from: Readable
  readonly #swap: Swap | undefined
  #isWhole = false

  constructor(from: Readable, swap?: Swap) {
    super({ highWaterMark: 65_536 })
    this.#from = from
    this.#swap = swap
    from.on('data', (chunk: Buffer) => {
      this.bytes += chunk.length
      if (this.destroyed) return
      const bytes = this.#swap ? this.#swap.push(chunk) : chunk
      if (bytes.length > 0 && !this.push(bytes)) from.pause()
    })
    from.once('end', () => {
      this.#isWhole = true
      if (this.destroyed) return
      const rest = this.#swap?.end()
      if (rest && rest.length > 0) this.push(rest)
      this.push(null)
    })
    const brokenOff = () => {
      if (!this.#isWhole) this.destroy(new Error('The client broke off its request'))
    }
    from.once('error', brokenOff).once('close', brokenOff)
  }

  override _read(): void {
    this.#from.resume()
  }

  override _destroy(error: Error | null, callback: (error: Error | null) => void): void {
    // What still comes is let pass by, for the client to get to reading its answer.
    this.#from.resume()
    callback(error)
  }
}

/** Unpacks one way of compressing; undefined for those that aren't known. */
const decompressors = new Map<string, () => Transform>([
  ['gzip', createGunzip],
  ['x-gzip', createGunzip],
  ['deflate', createInflate],
  ['br', createBrotliDecompress],
  // What RFC 9659 allows: a host could ask for a window of 128 MB for each answer otherwise.
  ['zstd', () => createZstdDecompress({ params: { [constants.ZSTD_d_windowLogMax]: 23 } })],
])

/**
 * Undoes a Content-Encoding, last applied first.
 *
 * @returns none when there is nothing to undo; undefined when one of them isn't known
 */
export function decompressorsFor(encoding: string): Transform[] | undefined {
  const names = encoding.split(',').map((name) => name.trim().toLowerCase())
  const makers = names.filter((name) => name !== '' && name !== 'identity').map((name) => decompressors.get(name))
  // Each more is more work for nothing that a host does.
  if (makers.length > 2 || makers.includes(undefined)) return undefined
  return makers.reverse().map((make) => (make as () => Transform)())
}

export interface Swapping {
  body: SentBody | Promise<Buffer>
  /** As they came */
  bytes(): number
  unpacked: boolean
  /** So many bytes at most are held until all of it has come */
  held: number
}

/**
 * A body in which placeholders become values; compressed ones are sent unpacked.
 *
 * @param room bytes that may be held; a longer body goes out as it comes, without its length
 */
export function swappedBody(from: Readable, placeholders: Placeholders, headers: string[], room: number): Swapping {
  const unpackers = decompressorsFor(headerOf(headers, 'content-encoding') ?? '') ?? []
  let bytes = 0
  if (unpackers.length > 0) from.on('data', (chunk: Buffer) => (bytes += chunk.length))
  const last = unpackers.at(-1)
  // A failure ends the last of them, which the body then tells of.
  if (last) pipeline([from, ...unpackers] as [Readable, ...Transform[]], () => undefined)
  const body = new SentBody(last ?? from, openSwap(placeholders, escapeFor(headerOf(headers, 'content-type') ?? '')))
  const length = Number(headerOf(headers, 'content-length') ?? Number.POSITIVE_INFINITY)
  const isHeld = !last && length <= Math.min(MOST_WHOLE_BYTES, room)
  return {
    body: isHeld ? whole(body) : body,
    held: isHeld ? length : 0,
    bytes: () => (last ? bytes : body.bytes),
    unpacked: last !== undefined,
  }
}

async function whole(body: SentBody): Promise<Buffer> {
  const chunks: Buffer[] = []
  for await (const chunk of body) chunks.push(chunk as Buffer)
  return Buffer.concat(chunks)
}

function escapeFor(contentType: string): Escape {
  if (/^application\/(?:[^;]*\+)?json\b|^application\/x-ndjson\b/i.test(contentType)) return 'json'
  return /^application\/x-www-form-urlencoded\b/i.test(contentType) ? 'form' : 'raw'
}

export function headerOf(headers: string[], wanted: string): string | undefined {
  for (let at = 0; at < headers.length; at += 2) {
    const name = headers[at] as string
    if (name.length === wanted.length && name.toLowerCase() === wanted) return headers[at + 1]
  }
  return undefined
}
