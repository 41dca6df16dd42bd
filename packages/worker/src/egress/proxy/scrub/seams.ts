import type { Matcher } from './matcher.ts'
import { SHORTEST } from './parts.ts'

/**
 * Takes out secrets that are spread over several units, the events of a stream or the messages of a WebSocket: what a
 * model says comes in pieces of a few letters, each in JSON of its own. A unit is held only while what it ends with may
 * be the beginning of a secret, and with it those that come after it.
 */
export interface Seams<T> {
  /** @returns the units that can go on, in their order */
  add(unit: Unit<T>): Unit<T>[]
  /** Lets all go on; the longer beginnings of secrets are masked, and what comes later of a secret is still found */
  release(): Unit<T>[]
  /** The end: what is held is no secret */
  end(): Unit<T>[]
  readonly holds: boolean
}

export interface Unit<T> {
  bytes: Buffer
  segments: Segment[]
  /** What the caller knows it by */
  label: T
}

/** Part of a unit that continues the part of the same name in the unit before. */
export interface Segment {
  channel: string
  from: number
  to: number
}

/** Takes part of a unit out of it, for what stands there instead. */
interface Cut {
  from: number
  to: number
  text: string
}

interface Waiting<T> {
  unit: Unit<T>
  cuts: Cut[]
  gone: boolean
}

/** What one channel ends with, while that may be the beginning of a secret. */
interface Channel<T> {
  held: Buffer
  pieces: Piece<T>[]
  /** How much of it was let go or masked, and whether the last of it was masked */
  done: number
  masked: boolean
}

interface Piece<T> {
  waiting: Waiting<T>
  /** Where it lies in the unit */
  from: number
  length: number
}

/** Enough for the longest secret in pieces of one letter. */
const MAX_HELD_BYTES = 4 * 1024 * 1024

export function openSeams<T>(matcher: Matcher): Seams<T> {
  const channels = new Map<string, Channel<T>>()
  const queue: Waiting<T>[] = []
  let queuedBytes = 0

  function follow(waiting: Waiting<T>, { channel: name, from, to }: Segment): void {
    const before = channels.get(name)
    const content = waiting.unit.bytes.subarray(from, to)
    const bytes = before ? Buffer.concat([before.held, content]) : content
    const { found, open } = matcher.search(bytes, false)
    if (!before && found.length === 0 && open === bytes.length) return
    const pieces = [...(before?.pieces ?? []), { waiting, from, length: to - from }]
    let at = before?.done ?? 0
    let masked = before?.masked ?? false
    for (const [start, end] of found) {
      if (end <= at) continue
      cut(pieces, Math.max(start, at), end, start >= at || !masked)
      at = end
      masked = true
    }
    if (open === bytes.length) channels.delete(name)
    else {
      const done = Math.max(0, at - open)
      channels.set(name, { held: Buffer.from(bytes.subarray(open)), pieces: behind(pieces, open), done, masked })
    }
  }

  function drain(): Unit<T>[] {
    const awaited = new Set<Waiting<T>>()
    for (const { pieces, done } of channels.values()) {
      for (const { waiting } of behind(pieces, done)) awaited.add(waiting)
    }
    const first = queue.findIndex((waiting) => awaited.has(waiting))
    const free = queue.splice(0, first < 0 ? queue.length : first)
    return free.map((waiting) => {
      waiting.gone = true
      queuedBytes -= waiting.unit.bytes.length
      return waiting.cuts.length > 0 ? { ...waiting.unit, bytes: withCuts(waiting) } : waiting.unit
    })
  }

  function release(): Unit<T>[] {
    for (const channel of channels.values()) {
      const { held, pieces, done, masked } = channel
      const long = held.length >= SHORTEST
      if (long && done < held.length) cut(pieces, done, held.length, !masked)
      if (done < held.length) channel.masked = long
      channel.done = held.length
    }
    return drain()
  }

  return {
    add(unit) {
      const waiting = { unit, cuts: [], gone: false }
      queue.push(waiting)
      queuedBytes += unit.bytes.length
      for (const segment of unit.segments) if (segment.to > segment.from) follow(waiting, segment)
      return queuedBytes > MAX_HELD_BYTES ? release() : drain()
    },
    release,
    end() {
      channels.clear()
      return drain()
    },
    get holds() {
      return queue.length > 0
    },
  }
}

/** The pieces without their first bytes. */
function behind<T>(pieces: Piece<T>[], bytes: number): Piece<T>[] {
  let left = bytes
  return pieces.flatMap((piece) => {
    const skipped = Math.min(left, piece.length)
    left -= skipped
    return skipped < piece.length ? [{ ...piece, from: piece.from + skipped, length: piece.length - skipped }] : []
  })
}

/** Masks a part of what the pieces hold together, with the mask where it begins. */
function cut<T>(pieces: Piece<T>[], from: number, to: number, mark: boolean): void {
  let left = to - from
  let text = mark ? '***' : ''
  for (const piece of behind(pieces, from)) {
    if (left <= 0) return
    const length = Math.min(left, piece.length)
    left -= length
    if (piece.waiting.gone) continue
    piece.waiting.cuts.push({ from: piece.from, to: piece.from + length, text })
    text = ''
  }
}

function withCuts<T>({ unit: { bytes }, cuts }: Waiting<T>): Buffer {
  const pieces: Buffer[] = []
  let at = 0
  for (const { from, to, text } of cuts.toSorted((a, b) => a.from - b.from)) {
    // Two channels may have found the same.
    if (to <= at) continue
    if (from > at) pieces.push(bytes.subarray(at, from))
    if (from >= at) pieces.push(Buffer.from(text))
    at = to
  }
  pieces.push(bytes.subarray(at))
  return Buffer.concat(pieces)
}
