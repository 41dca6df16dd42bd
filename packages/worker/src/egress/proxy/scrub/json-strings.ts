/** A string somewhere in a JSON text. */
export interface JsonString {
  /** The keys and places that lead to it */
  path: string
  /** Its content between the quotes, as it is written */
  from: number
  to: number
}

export interface JsonStrings {
  strings: JsonString[]
  /** The numbers in it that say to which of several things it belongs, like `index` beside a delta */
  indexes: string
}

interface Level {
  path: string
  /** Place in a list; -1 in an object */
  place: number
  key: string
}

const MAX_DEPTH = 64
// Each string has its path in its name, so that long ones would multiply.
const MAX_STRINGS = 2_000
const MAX_KEY_LENGTH = 200
const MAX_PATH_LENGTH = 500
const MAX_INDEXES_LENGTH = 500
const MAX_INDEX_LENGTH = 20
const [QUOTE, BACKSLASH, COLON, COMMA] = [0x22, 0x5c, 0x3a, 0x2c]
const [OPEN_LIST, CLOSE_LIST, OPEN_OBJECT, CLOSE_OBJECT] = [0x5b, 0x5d, 0x7b, 0x7d]

/**
 * Finds the strings of an object or list without making anything of it.
 *
 * @returns nothing when the text is neither, broken in a way that matters here, or more than a piece of what is said:
 * thousands of strings, or keys of hundreds of characters
 */
export function stringsOf(text: Buffer): JsonStrings | undefined {
  const levels: Level[] = []
  const found: JsonStrings = { strings: [], indexes: '' }
  let at = 0
  let closed = false
  while (at < text.length) {
    const byte = text[at]
    const level = levels.at(-1)
    if (closed && byte !== undefined && byte > 0x20) return undefined
    if (byte === OPEN_OBJECT || byte === OPEN_LIST) {
      if (levels.length === MAX_DEPTH) return undefined
      const path = level ? pathIn(level) : ''
      if (path.length > MAX_PATH_LENGTH) return undefined
      levels.push({ path, place: byte === OPEN_LIST ? 0 : -1, key: '' })
      at++
    } else if (!level) {
      if (byte === undefined || byte > 0x20) return undefined
      at++
    } else if (byte === CLOSE_OBJECT || byte === CLOSE_LIST) {
      levels.pop()
      closed = levels.length === 0
      at++
    } else if (byte === COMMA) {
      if (level.place >= 0) level.place++
      level.key = ''
      at++
    } else if (byte === QUOTE) {
      const to = endOfString(text, at + 1)
      if (to < 0) return undefined
      if (isKey(text, to + 1, level)) {
        if (to - at - 1 > MAX_KEY_LENGTH) return undefined
        level.key = text.toString('latin1', at + 1, to)
      } else if (found.strings.length === MAX_STRINGS) return undefined
      else found.strings.push({ path: pathIn(level), from: at + 1, to })
      at = to + 1
    } else if (byte !== undefined && byte >= 0x30 && byte <= 0x39 && /index$/i.test(level.key)) {
      const end = endOfNumber(text, at)
      const index = ` ${pathIn(level)}=${text.toString('latin1', at, Math.min(end, at + MAX_INDEX_LENGTH))}`
      if (found.indexes.length + index.length <= MAX_INDEXES_LENGTH) found.indexes += index
      at = end
    } else at++
  }
  return closed ? found : undefined
}

const pathIn = ({ path, place, key }: Level) => `${path}/${place < 0 ? key : place}`

function endOfString(text: Buffer, from: number): number {
  for (let quote = text.indexOf(QUOTE, from); quote >= 0; quote = text.indexOf(QUOTE, quote + 1)) {
    let before = quote
    while (before > from && text[before - 1] === BACKSLASH) before--
    if ((quote - before) % 2 === 0) return quote
  }
  return -1
}

/** In an object, a string before a colon. */
function isKey(text: Buffer, from: number, { place }: Level): boolean {
  if (place >= 0) return false
  let at = from
  while (at < text.length && (text[at] ?? 0) <= 0x20) at++
  return text[at] === COLON
}

function endOfNumber(text: Buffer, from: number): number {
  let at = from
  while (at < text.length && (text[at] ?? 0) >= 0x30 && (text[at] ?? 0) <= 0x39) at++
  return at
}
