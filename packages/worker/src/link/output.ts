import { cutMarker, egressLimitBytes, streamLimitBytes } from '@paws/api'
import type { Stream } from './journal.ts'

/** Longest piece that is cut. */
export const pieceBytes = 256 * 1024

/** Kept within the limit, so that the control plane has nothing to cut. */
const marker = Buffer.from(cutMarker)

export interface Piece {
  stream: Stream
  bytes: Buffer
}

/**
 * Gathers what a session writes and cuts it into pieces, between characters where it is UTF-8. What is added to `egress`
 * stays the piece that it is, and has a limit of its own.
 */
export interface Gatherer {
  /** Bytes gathered and not yet taken */
  readonly bytes: number
  add(stream: Stream, bytes: Buffer): void
  /** All that can be cut now, the stream that was written to first coming first; with `all`, unfinished characters too */
  take(all?: boolean): Piece[]
}

export function openGatherer(limitBytes = streamLimitBytes, recordLimitBytes = egressLimitBytes): Gatherer {
  const gathered = new Map<Stream, Buffer[]>()
  const left = new Map<Stream, number>()
  let records: Piece[] = []
  let recordBytes = 0
  let total = 0

  return {
    get bytes() {
      return total
    },
    add(stream, bytes) {
      if (stream === 'egress') {
        // The first that is too much goes out too: by it the control plane knows that there was more.
        if (recordBytes > recordLimitBytes) return
        recordBytes += bytes.length
        total += bytes.length
        records.push({ stream, bytes })
        return
      }
      const room = left.get(stream) ?? limitBytes - marker.length
      if (room < 0 || bytes.length === 0) return
      const pieces = gathered.get(stream) ?? []
      gathered.set(stream, pieces)
      const fitting = bytes.subarray(0, room)
      const added = fitting.length < bytes.length ? [fitting.subarray(0, wholeCharacters(fitting)), marker] : [fitting]
      pieces.push(...added)
      total += added.reduce((sum, piece) => sum + piece.length, 0)
      left.set(stream, added.length > 1 ? -1 : room - fitting.length)
    },
    take(all = false) {
      const taken: Piece[] = records
      records = []
      total -= taken.reduce((sum, { bytes }) => sum + bytes.length, 0)
      for (const [stream, pieces] of [...gathered]) {
        const bytes = Buffer.concat(pieces)
        const end = all ? bytes.length : wholeCharacters(bytes)
        gathered.delete(stream)
        if (end < bytes.length) gathered.set(stream, [bytes.subarray(end)])
        for (let at = 0; at < end; ) {
          const piece = bytes.subarray(at, Math.min(end, at + pieceBytes))
          const length = at + piece.length < end ? wholeCharacters(piece) : piece.length
          taken.push({ stream, bytes: piece.subarray(0, length) })
          at += length
          total -= length
        }
      }
      return taken
    },
  }
}

/** How many bytes there are before a character that has begun and isn't whole; all where the end isn't UTF-8. */
export function wholeCharacters(bytes: Buffer): number {
  for (let back = 1; back <= Math.min(3, bytes.length); back++) {
    const byte = bytes[bytes.length - back] as number
    if ((byte & 0xc0) === 0x80) continue
    const length = byte >= 0xf0 && byte <= 0xf4 ? 4 : byte >= 0xe0 ? 3 : byte >= 0xc2 ? 2 : 1
    return length > back && byte <= 0xf4 ? bytes.length - back : bytes.length
  }
  return bytes.length
}
