import { Readable } from 'node:stream'
import { chunkBytes, encodeFrame, frameType, ProtocolBreach, windowBytes } from './frames.ts'
import type { GuestLink } from './link.ts'

/** The guest agent would not do something that is no matter of files; the message says why. */
export class GuestRefused extends Error {
  override name = 'GuestRefused'
}

/** The host's end of a stream that leads into the guest: sends no more than the guest has given credit for. */
export interface Inlet {
  /** `taken` is called once everything has been sent, or can't be any more */
  write(bytes: Uint8Array, taken: () => void): void
  /** After what was written */
  end(): void
  credit(bytes: number): void
  /** The request is over: the guest takes nothing more, and whoever waits is let go */
  finish(): void
  /** Whether the guest has been told of the end */
  readonly ended: boolean
}

export function openInlet(link: GuestLink, id: number): Inlet {
  let credit = windowBytes
  let waiting: { bytes: Uint8Array; taken: () => void }[] = []
  let ending = false
  let told = false
  let finished = false

  function pump() {
    for (let first = waiting[0]; first && !finished; first = waiting[0]) {
      while (first.bytes.length > 0) {
        const size = Math.min(first.bytes.length, chunkBytes, credit)
        if (size === 0) return
        link.send(...dataFrame(id, first.bytes.subarray(0, size)))
        credit -= size
        first.bytes = first.bytes.subarray(size)
      }
      waiting.shift()
      first.taken()
    }
    if (!ending || finished || told) return
    link.send(encodeFrame(frameType.end, id))
    told = true
  }

  return {
    write(bytes, taken) {
      if (finished || ending) return taken()
      waiting.push({ bytes, taken })
      if (waiting.length === 1) pump()
    },
    end() {
      if (ending) return
      ending = true
      pump()
    },
    credit(bytes) {
      if (bytes === 0 || credit + bytes > windowBytes) throw new ProtocolBreach('credit for what was never sent')
      credit += bytes
      pump()
    },
    finish() {
      finished = true
      const left = waiting
      waiting = []
      for (const { taken } of left) taken()
    },
    get ended() {
      return told
    },
  }
}

// The header alone, so that what may be large is not copied.
function dataFrame(id: number, bytes: Uint8Array): Uint8Array[] {
  const header = encodeFrame(frameType.data, id, [1, 0])
  header.writeUInt32BE(6 + bytes.length, 0)
  return [header, bytes]
}

/** The host's end of a stream that leads out of the guest. Holds two windows at most, however the guest cuts it up. */
export interface Outlet {
  /** For the `read` of the stream's options */
  read(): void
  data(bytes: Buffer): void
  end(): void
  /** Nobody reads any more: what still comes is taken and dropped */
  drain(): void
  readonly ended: boolean
}

/** `target` is only asked for when there is something to push, since a stream needs its `read` first. */
export function openOutlet(link: GuestLink, id: number, stream: number, target: () => Readable): Outlet {
  let credit = windowBytes
  let owed = 0
  let wanted = false
  let draining = false
  let ended = false
  // Gathered while nobody asks: as one piece, since 256 thousand pieces of one byte would take a hundred times more.
  let held = Buffer.alloc(0)
  let heldBytes = 0

  function give() {
    if (owed < windowBytes / 2 || ended) return
    link.send(encodeFrame(frameType.credit, id, [1, stream], [4, owed]))
    credit += owed
    owed = 0
  }

  function push(bytes: Buffer) {
    owed += bytes.length
    wanted = target().push(bytes)
    if (wanted) give()
  }

  function hold(bytes: Buffer) {
    if (heldBytes + bytes.length > held.length) {
      const larger = Buffer.allocUnsafeSlow(Math.min(windowBytes, 2 * (heldBytes + bytes.length)))
      held.copy(larger, 0, 0, heldBytes)
      held = larger
    }
    heldBytes += bytes.copy(held, heldBytes)
  }

  function finish() {
    if (ended && heldBytes === 0 && !draining) target().push(null)
  }

  return {
    read() {
      wanted = true
      give()
      if (heldBytes === 0) return
      const bytes = held.subarray(0, heldBytes)
      held = Buffer.alloc(0)
      heldBytes = 0
      push(bytes)
      finish()
    },
    data(bytes) {
      if (ended) throw new ProtocolBreach('data after the end of its stream')
      if (bytes.length > credit) throw new ProtocolBreach('more data than it had credit for')
      credit -= bytes.length
      if (draining) {
        owed += bytes.length
        give()
      } else if (wanted && heldBytes === 0) {
        // A small piece of a large read buffer would keep all of that alive.
        push(bytes.length * 4 < bytes.buffer.byteLength ? Buffer.from(bytes) : bytes)
      } else {
        hold(bytes)
      }
    },
    end() {
      if (ended) throw new ProtocolBreach('two ends of one stream')
      ended = true
      finish()
    },
    drain() {
      draining = true
      owed += heldBytes
      heldBytes = 0
      held = Buffer.alloc(0)
      give()
    },
    get ended() {
      return ended
    },
  }
}

/** A stream of what comes out of `outlet`. Destroying it early only means that nobody listens. */
export function outletReadable(outlet: Outlet): Readable {
  const stream = new Readable({
    // The outlet itself gathers what nobody has asked for yet.
    highWaterMark: 1,
    read: outlet.read,
    destroy: (error, callback) => {
      outlet.drain()
      callback(error)
    },
  })
  // Whoever reads it hears of an error; without a reader it must not end the worker.
  stream.on('error', () => undefined)
  return stream
}
