import { SHORTEST } from './parts.ts'
import { type Edge, type Spellings, spell } from './spellings.ts'

/** Where secrets lie in some bytes. */
export interface Findings {
  /** From and to, in order, none touching another: what overlaps is one */
  found: [from: number, to: number][]
  /** From here on it may be the beginning of a secret; the number of bytes if nothing is */
  open: number
}

export interface Matcher {
  /** @param last whether nothing follows, so that a beginning is none */
  search(bytes: Uint8Array, last: boolean): Findings
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
const MAX_STATES = 20_000

/** @param secrets each of at least eight characters, one a byte */
export function openMatcher(secrets: string[]): Matcher {
  const spellings = spell(secrets)
  const filter = filterOf(spellings)
  let states = 0
  let first = firstStates()

  function firstStates(): (State | undefined)[] {
    states = 0
    const root = successors({ nodes: spellings.starts, ends: false })
    return Array.from({ length: 256 }, (_, byte) => root.get(byte))
  }

  function successors(state: State): Map<number, State> {
    const next = new Map<number, State>()
    for (const [byte, node] of state.nodes.flatMap(spellings.edges)) {
      const known = next.get(byte)
      if (!known) next.set(byte, { nodes: [node], ends: spellings.ends(node) })
      else if (!known.nodes.includes(node)) {
        known.nodes.push(node)
        known.ends ||= spellings.ends(node)
      }
    }
    states += next.size
    return next
  }

  /** Where the longest secret that begins here ends, or -1, and whether a longer one may go on behind the last byte */
  function read(bytes: Uint8Array, from: number): { to: number; open: boolean } {
    if (states > MAX_STATES) first = firstStates()
    let state = first[bytes[from] ?? 0]
    let to = -1
    for (let at = from + 1; state; at++) {
      if (state.ends) to = at
      if (at === bytes.length) return { to, open: state.nodes.some((node) => !spellings.ends(node)) }
      state.next ??= successors(state)
      state = state.next.get(bytes[at] ?? 0)
    }
    return { to, open: false }
  }

  function search(bytes: Uint8Array, last: boolean): Findings {
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
        const { to, open } = read(bytes, from)
        if (to > 0) add(found, from, to)
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
function filterOf({ starts, edges }: Spellings): Uint8Array {
  const filter = new Uint8Array(1 << FILTER_BITS)
  const known = new Map<number, Edge[]>()
  const from = (node: number) => {
    const edgesThere = known.get(node) ?? edges(node)
    known.set(node, edgesThere)
    return edgesThere
  }
  let level = new Set(starts)
  const marked = new Set<number>()
  for (let depth = 0; depth < STRIDE; depth++) {
    const next = new Set<number>()
    for (const node of level) {
      for (const [, following] of from(node)) next.add(following)
      if (marked.has(node)) continue
      marked.add(node)
      for (const [a, second] of from(node)) {
        for (const [b, third] of from(second)) for (const [c] of from(third)) filter[slot(a, b, c)] = 1
      }
    }
    level = next
  }
  return filter
}
