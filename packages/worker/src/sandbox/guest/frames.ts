/** Frames of the guest agent's stream, as guest/PROTOCOL.md describes them. Nothing here keeps state of a request. */

export const protocolVersion = 1
/** Bytes in one DATA frame at most */
export const chunkBytes = 64 * 1024
/** Bytes in flight per stream until credit is given back */
export const windowBytes = 256 * 1024
/** What the length of a frame from the guest may say: type, request id and payload */
export const maxLength = chunkBytes + 64
/** Working directory, arguments and environment of one exec together, in one frame: more than Linux takes */
export const maxStringsBytes = 8 * 1024 * 1024 - 64

export const frameType = {
  hello: 1,
  exec: 2,
  put: 3,
  get: 4,
  connect: 5,
  data: 6,
  end: 7,
  credit: 8,
  signal: 9,
  resize: 10,
  cancel: 11,
  time: 12,
  reseed: 13,
  shutdown: 14,
  ping: 15,
  opened: 32,
  done: 33,
  exit: 34,
  error: 35,
} as const

export interface Frame {
  type: number
  id: number
  payload: Buffer
}

/** The other side has broken the protocol; the message says how. */
export class ProtocolBreach extends Error {
  override name = 'ProtocolBreach'
}

/** Part of a payload: bytes, or an unsigned big-endian number of so many bytes */
export type Field = Uint8Array | readonly [bytes: 1 | 2 | 4 | 8, value: number]

export function encodeFrame(type: number, id: number, ...fields: Field[]): Buffer {
  const size = fields.reduce((sum, field) => sum + (field instanceof Uint8Array ? field.length : field[0]), 0)
  const frame = Buffer.allocUnsafe(9 + size)
  frame.writeUInt32BE(5 + size, 0)
  frame.writeUInt8(type, 4)
  frame.writeUInt32BE(id, 5)
  let at = 9
  for (const field of fields) {
    if (field instanceof Uint8Array) frame.set(field, at)
    else if (field[0] === 8) frame.writeBigUInt64BE(BigInt(field[1]), at)
    else frame.writeUIntBE(field[1], at, field[0])
    at += field instanceof Uint8Array ? field.length : field[0]
  }
  return frame
}

/**
 * Cuts a stream of chunks into frames; keeps at most one unfinished frame.
 *
 * @returns a function that yields the frames which a chunk completes; it throws ProtocolBreach for an impossible length
 */
export function frameReader(): (chunk: Buffer) => Generator<Frame> {
  let rest: Buffer = Buffer.alloc(0)
  return function* read(chunk) {
    const bytes = rest.length > 0 ? Buffer.concat([rest, chunk]) : chunk
    let at = 0
    while (bytes.length - at >= 4) {
      const length = bytes.readUInt32BE(at)
      if (length < 5 || length > maxLength) throw new ProtocolBreach(`a frame of ${length} bytes`)
      if (bytes.length - at < 4 + length) break
      const frame = bytes.subarray(at + 4, at + 4 + length)
      at += 4 + length
      yield {
        type: frame.readUInt8(0),
        id: frame.readUInt32BE(1),
        payload: frame.subarray(5),
      }
    }
    // A copy, so that a few bytes don't keep a whole read buffer alive.
    rest = Buffer.from(bytes.subarray(at))
  }
}

/**
 * Bytes of a string for the guest: UTF-8, and a lone surrogate U+DC80 to U+DCFF is the raw byte 0x80 to 0xFF, which is
 * how a string can hold what isn't UTF-8 (Python calls it surrogateescape).
 *
 * @throws TypeError for NUL, which no argument, variable or path can hold
 */
export function guestBytes(text: string, what: string): Buffer {
  if (text.includes('\0')) throw new TypeError(`${what} holds a NUL character, which no program can be given`)
  if (text.isWellFormed()) return Buffer.from(text)
  return Buffer.concat(
    Array.from(text, (character) => {
      const code = character.codePointAt(0) ?? 0
      return code >= 0xdc80 && code <= 0xdcff ? Buffer.of(code - 0xdc00) : Buffer.from(character)
    }),
  )
}
