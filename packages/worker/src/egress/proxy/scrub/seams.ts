import { allow, openEffort } from './effort.ts'
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
/** Those that went on longest ago are given up; all of them are looked at with each unit. */
const MAX_CHANNELS = 500
/** Steps of the effort that a piece costs each time that its channel goes on. */
const PER_PIECE = 16

export function openSeams<T>(matcher: Matcher): Seams<T> {
  const effort = openEffort()
  const channels = new Map<string, Channel<T>>()
  const queue: Waiting<T>[] = []
  let queuedBytes = 0

  function follow(waiting: Waiting<T>, { channel: name, from, to }: Segment): void {
    const before = channels.get(name)
    const content = waiting.unit.bytes.subarray(from, to)
    const bytes = before ? Buffer.concat([before.held, content]) : content
    const { found, open } = matcher.search(bytes, false, effort)
    if (!before && found.length === 0 && open === bytes.length) return
    const pieces = [...(before?.pieces ?? []), { waiting, from, length: to - from }]
    effort.left -= pieces.length * PER_PIECE
    let at = before?.done ?? 0
    let masked = before?.masked ?? false
    for (const [start, end] of found) {
      if (end <= at) continue
      cut(pieces, Math.max(start, at), end, start >= at || !masked)
      at = end
      masked = true
    }
    channels.delete(name)
    if (open < bytes.length) {
      const done = Math.max(0, at - open)
      channels.set(name, { held: Buffer.from(bytes.subarray(open)), pieces: behind(pieces, open), done, masked })
    }
  }

  function drain(): Unit<T>[] {
    const awaited = new Set<Waiting<T>>()
    for (const { pieces, held, done } of channels.values()) {
      if (done === held.length) continue
      // Those behind it wait for it anyhow.
      const waiting = pieceAt(pieces, done)?.waiting
      if (waiting) awaited.add(waiting)
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
      allow(effort, unit.bytes.length)
      for (const segment of unit.segments) if (segment.to > segment.from) follow(waiting, segment)
      if (queuedBytes <= MAX_HELD_BYTES && channels.size <= MAX_CHANNELS && effort.left >= 0) return drain()
      const units = release()
      if (effort.left < 0) channels.clear()
      for (const name of channels.keys()) {
        if (channels.size <= MAX_CHANNELS / 2) break
        channels.delete(name)
      }
      return units
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

function pieceAt<T>(pieces: Piece<T>[], bytes: number): Piece<T> | undefined {
  let left = bytes
  return pieces.find(({ length }) => {
    left -= length
    return left < 0
  })
}

/** The pieces without their first bytes. */
function behind<T>(pieces: Piece<T>[], bytes: number): Piece<T>[] {
  if (bytes === 0) return pieces
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
