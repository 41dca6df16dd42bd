import type { Effort } from './effort.ts'
import { SHORTEST } from './parts.ts'
import { type Spellings, spell, type Writings } from './spellings.ts'

/** Where secrets lie in some bytes. */
export interface Findings {
  /** From and to, in order, none touching another: what overlaps is one */
  found: [from: number, to: number][]
  /** From here on it may be the beginning of a secret; the number of bytes if nothing is */
  open: number
}

export interface Matcher {
  /**
   * @param last whether nothing follows, so that a beginning is none
   * @param effort what it may cost; when that is spent all the rest counts as a secret
   */
  search(bytes: Uint8Array, last: boolean, effort: Effort): Findings
  /** Whether there may be a secret in a text; says no quickly */
  mayHold(text: string): boolean
}

/** What has been read of one or more secrets. Their successors are made when they are first needed. */
interface State {
  nodes: number[]
  ends: boolean
  next?: Map<number, State>
}

/*
 * Nearly all that comes holds no secret, so most bytes are not even looked at. No secret is shorter than eight bytes in
 * any spelling, so one that begins in a span of six has three bytes in a row at the end of that span which can stand
 * near a secret's beginning. Only where that is so is each beginning tried.
 */
const GRAM = 3
const STRIDE = SHORTEST - GRAM + 1
const FILTER_BITS = 16
const slot = (a: number, b: number, c: number) => Math.imul(a | (b << 8) | (c << 16), 0x9e3779b1) >>> (32 - FILTER_BITS)

/** Enough for the longest secret in some spellings; whoever makes us read so many more only makes us begin anew. */
const MAX_KNOWN_NODES = 200_000
/** A state is dearer to make than to pass, by about this for each of its nodes. */
const MAKING = 16

/** @param secrets each of at least eight characters, one a byte */
export function openMatcher(secrets: string[]): Matcher {
  const spellings = spell(secrets)
  const filter = filterOf(spellings)
  let known = 0
  const root: State = { nodes: spellings.starts, ends: false }
  const rootNext = successors(root)
  const first = Array.from({ length: 256 }, (_, byte) => rootNext.get(byte))

  /** Forgets all that can be made again. */
  function forget(): void {
    known = 0
    for (const state of rootNext.values()) delete state.next
  }

  function successors(state: State): Map<number, State> {
    const nodes = new Map<number, Set<number>>()
    for (const node of state.nodes) {
      for (const [byte, following] of spellings.edges(node)) {
        const before = nodes.get(byte)
        if (before) before.add(following)
        else nodes.set(byte, new Set([following]))
      }
    }
    const next = new Map<number, State>()
    for (const [byte, following] of nodes) {
      next.set(byte, { nodes: [...following], ends: [...following].some(spellings.ends) })
      known += following.size
    }
    return next
  }

  /** Where the longest secret that begins here ends, or -1, and whether a longer one may go on behind the last byte */
  function read(bytes: Uint8Array, from: number, effort: Effort): { to: number; open: boolean } {
    if (known > MAX_KNOWN_NODES) forget()
    let state = first[bytes[from] ?? 0]
    let to = -1
    for (let at = from + 1; state; at++) {
      if (state.ends) to = at
      if (effort.left-- < 0) return { to: bytes.length, open: false }
      if (at === bytes.length) return { to, open: state.nodes.some((node) => !spellings.ends(node)) }
      if (!state.next) {
        effort.left -= state.nodes.length * MAKING
        state.next = successors(state)
      }
      state = state.next.get(bytes[at] ?? 0)
    }
    return { to, open: false }
  }

  function search(bytes: Uint8Array, last: boolean, effort: Effort): Findings {
    if (effort.left < 0) return { found: bytes.length > 0 ? [[0, bytes.length]] : [], open: bytes.length }
    const found: Findings['found'] = []
    const { length } = bytes
    for (let from = 0; from < length; ) {
      // The end of the next span in which a secret may begin
      let span = from + STRIDE - 1
      while (span + GRAM <= length && !filter[slot(bytes[span] ?? 0, bytes[span + 1] ?? 0, bytes[span + 2] ?? 0)]) {
        span += STRIDE
      }
      const end = span + GRAM <= length ? span + 1 : length
      for (from = span - STRIDE + 1; from < end; from++) {
        if (!first[bytes[from] ?? 0]) continue
        const { to, open } = read(bytes, from, effort)
        if (to > 0) add(found, from, to)
        if (effort.left < 0) return { found, open: length }
        if (open && !last) return { found, open: from }
      }
    }
    return { found, open: length }
  }

  const wide = secrets.some((secret) => /[^\0-\x7f]/.test(secret))

  function mayHold(text: string): boolean {
    // In such a text a secret that is not ASCII has other bytes than this looks at.
    if (wide && /[^\0-\xff]/.test(text)) return true
    for (let at = STRIDE - 1; at + GRAM <= text.length; at += STRIDE) {
      if (filter[slot(text.charCodeAt(at), text.charCodeAt(at + 1), text.charCodeAt(at + 2))]) return true
    }
    return false
  }

  return { search, mayHold }
}

/** Secrets that overlap leave no rest of either: they become one. */
function add(found: Findings['found'], from: number, to: number): void {
  const before = found.at(-1)
  if (!before || from >= before[1]) found.push([from, to])
  else if (to > before[1]) before[1] = to
}

/** Three bytes in a row that can stand within the first eight of a secret, as numbers that few others share. */
function filterOf({ starts, writings }: Spellings): Uint8Array {
  const filter = new Uint8Array(1 << FILTER_BITS)
  const seamsOf = new Map<Writings, Seam>()
  const seamAt = (start: number, after: number): Seam => {
    const written = writings(start, after)
    const seam = seamsOf.get(written) ?? seamFor(written, filter)
    seamsOf.set(written, seam)
    return seam
  }
  const mark = (before: Seam, middle: Seam, after: Seam) => {
    for (const [a, b] of before.lastTwo) for (const c of middle.first) filter[slot(a, b, c)] = 1
    for (const a of before.last) {
      for (const [b, c] of middle.firstTwo) filter[slot(a, b, c)] = 1
      for (const b of middle.alone) for (const c of after.first) filter[slot(a, b, c)] = 1
    }
  }
  for (const start of starts) {
    const seams = Array.from({ length: STRIDE + 3 }, (_, after) => seamAt(start, after))
    for (let at = 0; at < STRIDE; at++) {
      const [before, middle, after, last] = seams.slice(at, at + 4) as [Seam, Seam, Seam, Seam]
      if (before.first.length === 0) break
      mark(before, middle, after)
      // One writing may stand for two bytes of UTF-8.
      mark(before, after, last)
    }
  }
  return filter
}

type Pair = readonly [number, number]

/** How what is written for one character may begin and end, where it meets that of another. */
interface Seam {
  first: number[]
  firstTwo: Pair[]
  last: number[]
  lastTwo: Pair[]
  /** Where it is one byte */
  alone: number[]
}

/** Marks what lies within one character, too. */
function seamFor(writings: Writings, filter: Uint8Array): Seam {
  const pairs = new Map<number, Pair>()
  const pairsAt = (from: number) => {
    pairs.clear()
    for (const writing of writings) {
      const [a, b] = writing.slice(from)
      if (a !== undefined && b !== undefined && writing.length > 1) pairs.set((a << 8) | b, [a, b])
    }
    return [...pairs.values()]
  }
  for (const writing of writings) {
    for (const [at, c] of writing.entries()) if (at > 1) filter[slot(writing[at - 2] ?? 0, writing[at - 1] ?? 0, c)] = 1
  }
  const distinct = (bytes: number[]) => [...new Set(bytes)]
  return {
    first: distinct(writings.flatMap(([byte = 0]) => byte)),
    firstTwo: pairsAt(0),
    last: distinct(writings.map((writing) => writing.at(-1) ?? 0)),
    lastTwo: pairsAt(-2),
    alone: distinct(writings.flatMap(([byte = 0, more]) => (more === undefined ? byte : []))),
  }
}
