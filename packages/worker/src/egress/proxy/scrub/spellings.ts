/**
 * All ways in which secrets may be written, as one automaton: each character as itself, as %XX or as \uXXXX, whatever
 * the one before it was. No list of patterns could hold that: a secret of a hundred characters has 3^100 of them.
 */
export interface Spellings {
  /** Where each chain of characters begins */
  starts: number[]
  edges(node: number): Edge[]
  /** Whether a secret has been read to its end */
  ends(node: number): boolean
  /** All that may be written for a character, so many after that of a start; nothing behind the end */
  writings(start: number, after: number): Writings
}

/** Same object for same character. */
export type Writings = readonly (readonly number[])[]

/** Which byte leads to which node. */
export type Edge = [byte: number, node: number]

interface Chain {
  kind: number
  bytes: Uint8Array
}

// What the characters of a chain are.
const TEXT = 0
const UTF8 = 1
const BASE64 = 2
const HEX = 3
const END = 4

// A node is a place in a chain, with what of the character there has been read already.
const MODE_BITS = 5
const MODES = (1 << MODE_BITS) - 1
const PLAIN = 0
const PERCENT = 1
const PERCENT_2 = 2
const PERCENT_25 = 3
const PERCENT_LOW = 4
const U = 5
const U_0 = 6
const U_00 = 7
const U_LOW = 8
// One backslash and up to six more: JSON within JSON doubles them.
const BACKSLASH = 9
const LAST_BACKSLASH = 15
// Base64 in lines: a line's end before this character, as it is or as JSON has it.
const CR = 16
const CR_BACKSLASH = 17
const CR_BACKSLASHES = 18
const NEW_LINE = 19

const ord = (text: string) => text.charCodeAt(0)

/** @param secrets one character a byte */
export function spell(secrets: string[]): Spellings {
  const chains = secrets.flatMap(chainsOf)
  const size = chains.reduce((sum, { bytes }) => sum + bytes.length + 1, 0)
  const bytes = new Uint8Array(size)
  const kinds = new Uint8Array(size).fill(END)
  let at = 0
  const starts = chains.map((chain) => {
    const start = at
    bytes.set(chain.bytes, start)
    kinds.fill(chain.kind, start, start + chain.bytes.length)
    at += chain.bytes.length + 1
    return start << MODE_BITS
  })
  const positionAt = (place: number, mode: number): Position => {
    const [kind = END, byte = 0, next = 0] = [kinds[place], bytes[place], bytes[place + 1]]
    const wraps = kind === BASE64 && place > 0 && kinds[place - 1] === BASE64
    return { place, kind, mode, byte, next, wraps }
  }
  return {
    starts,
    edges: (node) => edgesOf(positionAt(node >> MODE_BITS, node & MODES)),
    ends: (node) => kinds[node >> MODE_BITS] === END,
    writings: (start, after) => writingsOf(positionAt((start >> MODE_BITS) + after, PLAIN)),
  }
}

/** By kind, byte and, in UTF-8, the next one: a few hundred there are. */
const knownWritings = new Map<number, Writings>()

function writingsOf(position: Position): Writings {
  const { kind, byte, next, wraps } = position
  const key = (Number(wraps) << 20) | (kind << 16) | (byte << 8) | (kind === UTF8 ? next : 0)
  const known = knownWritings.get(key)
  if (known) return known
  const writings: number[][] = []
  const walk = (mode: number, before: number[]) => {
    for (const [written, node] of edgesOf({ ...position, place: 0, mode })) {
      if (node >> MODE_BITS > 0) writings.push([...before, written])
      else walk(node & MODES, [...before, written])
    }
  }
  walk(PLAIN, [])
  knownWritings.set(key, writings)
  return writings
}

function chainsOf(secret: string): Chain[] {
  const latin1 = Buffer.from(secret, 'latin1')
  const chains = [{ kind: TEXT, bytes: latin1 }, ...encodingsOf(latin1)]
  const utf8 = Buffer.from(secret, 'utf8')
  // Whoever reads a header as text and answers in UTF-8 makes two bytes of each that is not ASCII.
  if (utf8.length > latin1.length) chains.push({ kind: UTF8, bytes: utf8 }, ...encodingsOf(utf8))
  return chains
}

function encodingsOf(secret: Buffer): Chain[] {
  const chains: Chain[] = [{ kind: HEX, bytes: Buffer.from(secret.toString('hex')) }]
  // Base64 has three forms, by where in a group of three bytes the secret begins; only what depends on nothing around
  // the secret is searched: some bits of its first and last byte may stay.
  for (const before of [0, 1, 2]) {
    const text = Buffer.concat([Buffer.alloc(before), secret]).toString('base64')
    const whole = text.slice(Math.ceil((before * 8) / 6), Math.floor(((before + secret.length) * 8) / 6))
    chains.push({ kind: BASE64, bytes: Buffer.from(whole) })
  }
  return chains
}

interface Position {
  place: number
  kind: number
  mode: number
  byte: number
  /** The byte after it in the chain */
  next: number
  /** Whether a new line may begin before it */
  wraps: boolean
}

function edgesOf(position: Position): Edge[] {
  const { place, kind, mode, byte } = position
  const to = (next: number): number => (place << MODE_BITS) | next
  const done = (place + 1) << MODE_BITS
  if (kind === END) return []
  if (mode === PLAIN) return plainEdges(position)
  if (mode >= CR) return newLineEdges(position)
  if (mode >= BACKSLASH) return backslashEdges(position)
  if (mode === PERCENT) return [...nibbles(position, 4, to(PERCENT_LOW)), [ord('2'), to(PERCENT_2)]]
  // %252F is %2F, encoded once more.
  if (mode === PERCENT_2) return [[ord('5'), to(PERCENT_25)]]
  if (mode === PERCENT_25) return nibbles(position, 4, to(PERCENT_LOW))
  if (mode === PERCENT_LOW) return nibbles(position, 0, done)
  if (mode === U) return [[ord('0'), to(U_0)]]
  if (mode === U_0) return [[ord('0'), to(U_00)]]
  const twoBytes = kind === UTF8 && byte >= 0xc0
  const character = twoBytes ? { ...position, byte: ((byte & 0x1f) << 6) | (position.next & 0x3f) } : position
  if (mode === U_00) return nibbles(character, 4, to(U_LOW))
  return nibbles(character, 0, twoBytes ? (place + 2) << MODE_BITS : done)
}

function plainEdges({ place, kind, byte, wraps }: Position): Edge[] {
  const done = (place + 1) << MODE_BITS
  const edges: Edge[] = variants(kind, byte).map((variant) => [variant, done])
  if (kind === HEX) return edges
  if (wraps) edges.push([ord('\r'), (place << MODE_BITS) | CR], [ord('\n'), (place << MODE_BITS) | NEW_LINE])
  // Forms write a space as "+".
  if (byte === ord(' ')) edges.push([ord('+'), done])
  edges.push([ord('%'), (place << MODE_BITS) | PERCENT], [ord('\\'), (place << MODE_BITS) | BACKSLASH])
  return edges
}

function backslashEdges({ place, mode, byte, wraps }: Position): Edge[] {
  const done = (place + 1) << MODE_BITS
  const edges: Edge[] = [[ord('u'), (place << MODE_BITS) | U]]
  if (mode < LAST_BACKSLASH) edges.push([ord('\\'), (place << MODE_BITS) | (mode + 1)])
  if (/[!-/:-@[-`{-~]/.test(String.fromCharCode(byte))) edges.push([byte, done])
  if (byte === ord('\t')) edges.push([ord('t'), done])
  if (wraps) {
    edges.push([ord('r'), (place << MODE_BITS) | CR], [ord('n'), (place << MODE_BITS) | NEW_LINE])
  }
  return edges
}

function newLineEdges({ place, kind, mode, byte }: Position): Edge[] {
  const to = (next: number): number => (place << MODE_BITS) | next
  if (mode === NEW_LINE) return variants(kind, byte).map((variant) => [variant, (place + 1) << MODE_BITS])
  if (mode === CR)
    return [
      [ord('\n'), to(NEW_LINE)],
      [ord('\\'), to(CR_BACKSLASH)],
    ]
  const twice: Edge[] = mode === CR_BACKSLASH ? [[ord('\\'), to(CR_BACKSLASHES)]] : []
  return [[ord('n'), to(NEW_LINE)], ...twice]
}

/** A byte as it may stand there: hexadecimal has two cases, base64 two alphabets. */
function variants(kind: number, byte: number): number[] {
  if (kind === HEX && byte >= ord('a')) return [byte, byte - 32]
  if (kind === BASE64 && byte === ord('+')) return [byte, ord('-')]
  if (kind === BASE64 && byte === ord('/')) return [byte, ord('_')]
  return [byte]
}

function nibbles({ kind, byte }: Position, shift: number, node: number): Edge[] {
  const digits = variants(kind, byte).map((variant) => ((variant >> shift) & 15).toString(16))
  const both = new Set(digits.flatMap((digit) => [digit, digit.toUpperCase()]))
  return [...both].map((digit) => [ord(digit), node])
}
