import { pipeline, Readable } from 'node:stream'
import { constants, createGunzip, inflateRawSync } from 'node:zlib'
import { type Form, spellingsOf } from './forms.ts'
import { compile } from './matcher.ts'

/** One thing to be looked through. */
export interface Item {
  /** Where it is, for people */
  where: string
  /** Its bytes, from the beginning each time */
  read(): Iterable<Buffer> | AsyncIterable<Buffer>
  /** It may be JSON or lines of it, with base64 in its strings: these are taken apart too */
  text?: boolean
}

/** A value that was found, by the name that it goes by, and how it was written. */
export interface Found {
  name: string
  form: Form
}

/** @returns what is there, each once however often it is, and how many bytes were looked through */
export type Search = (item: Item) => Promise<{ found: Found[]; bytes: number }>

const windowBytes = 4 * 1024 * 1024
/** What is compressed and not longer than this is found wherever in a large file it lies. */
const embeddedBytes = 64 * 1024
/** Most that is unpacked of one thing: it may have been made to burst. */
const unpackedBytes = 1024 * 1024 * 1024
const embeddedUnpackedBytes = 64 * 1024 * 1024
const gzipMagic = Buffer.from([0x1f, 0x8b, 0x08])

/** Values shorter than this can't be looked for: they would be found by chance. */
export const shortestValue = 8

/** Looks for values, each known by its name: in all the ways that they may be written, and inside of what is compressed. */
export function openSearch(values: Record<string, string>): Search {
  const patterns = Object.entries(values).flatMap(([name, value]) =>
    spellingsOf(value).map(({ form, bytes }) => ({ bytes, label: { name, form } })),
  )
  const matcher = compile<Found>(patterns)
  const overlap = Math.max(matcher.longest, embeddedBytes)

  return async ({ read, text }) => {
    const found = new Map<string, Found>()
    const note = (packed: boolean) => (label: Found) => {
      for (const form of packed ? [label.form, 'gzip' as const] : [label.form]) {
        found.set(`${label.name}\0${form}`, { name: label.name, form })
      }
    }

    function lookAt(bytes: Buffer, packed: boolean): void {
      matcher.find(bytes, note(packed))
      for (let at = bytes.indexOf(gzipMagic); at !== -1; at = bytes.indexOf(gzipMagic, at + 1)) {
        const inner = unpack(bytes.subarray(at))
        if (inner) matcher.find(inner, note(true))
      }
    }

    async function lookThrough(content: ReturnType<Item['read']>, packed: boolean): Promise<number> {
      let total = 0
      for await (const window of windows(content, overlap)) {
        total += window.fresh
        lookAt(window.bytes, packed)
        if (packed && total > unpackedBytes) break
      }
      return total
    }

    const bytes = await lookThrough(read(), false)
    if (bytes > embeddedBytes && (await startsCompressed(read()))) await lookThrough(gunzip(read()), true)
    if (text) for (const part of partsOf(await all(read()))) lookAt(part, false)
    return { found: [...found.values()], bytes }
  }
}

/** Long stretches that overlap, so that nothing short lies on an edge of each. */
async function* windows(content: ReturnType<Item['read']>, overlap: number) {
  let held: Buffer[] = []
  let size = 0
  let fresh = 0
  for await (const bytes of content) {
    held.push(bytes)
    size += bytes.length
    fresh += bytes.length
    if (size < windowBytes) continue
    const whole = held.length === 1 ? bytes : Buffer.concat(held)
    yield { bytes: whole, fresh }
    fresh = 0
    held = [Buffer.from(whole.subarray(-overlap))]
    size = overlap
  }
  if (fresh > 0) yield { bytes: Buffer.concat(held), fresh }
}

/** What follows the compressed bytes does not matter, nor that they may end too early. */
function unpack(bytes: Buffer): Buffer | undefined {
  try {
    const body = bytes.subarray(headerLength(bytes))
    return inflateRawSync(body, { finishFlush: constants.Z_SYNC_FLUSH, maxOutputLength: embeddedUnpackedBytes })
  } catch {
    // Three bytes that looked like the beginning of something compressed, and were not.
    return undefined
  }
}

/** Of a member of gzip, RFC 1952: ten bytes, and what its flags say is there besides. */
function headerLength(bytes: Buffer): number {
  const flags = bytes[3] ?? 0
  let length = 10
  if (flags & 4) length += 2 + bytes.readUInt16LE(length)
  for (const text of [8, 16]) if (flags & text) length = bytes.indexOf(0, length) + 1
  return flags & 2 ? length + 2 : length
}

async function startsCompressed(content: ReturnType<Item['read']>): Promise<boolean> {
  for await (const bytes of content) return bytes.subarray(0, gzipMagic.length).equals(gzipMagic)
  return false
}

async function* gunzip(content: ReturnType<Item['read']>): AsyncGenerator<Buffer> {
  const unpacked = createGunzip({ finishFlush: constants.Z_SYNC_FLUSH })
  // Whoever reads hears of what went wrong.
  pipeline(Readable.from(content), unpacked, () => undefined)
  try {
    yield* unpacked
  } catch {
    // Damaged: what came out before has been looked through.
  }
}

async function all(content: ReturnType<Item['read']>): Promise<Buffer> {
  const pieces: Buffer[] = []
  for await (const bytes of content) pieces.push(bytes)
  return Buffer.concat(pieces)
}

const deepest = 4

/** The strings in JSON, in lines of JSON and in events of a stream, and what base64 stands for, also in one another. */
function* partsOf(bytes: Buffer, depth = 0): Generator<Buffer> {
  if (depth > deepest) return
  const text = bytes.toString()
  const whole = stringsIn(text)
  const strings = whole ?? text.split('\n').flatMap((line) => stringsIn(line.replace(/^data: /, '')) ?? [line])
  for (const string of strings) {
    const inner = Buffer.from(string)
    if (string !== text) yield inner
    if (/^\s*[[{"]/.test(string) && string !== text) yield* partsOf(inner, depth + 1)
    for (const [base64] of string.matchAll(/[A-Za-z0-9+/_-]{24,}={0,2}/g)) yield Buffer.from(base64, 'base64')
  }
}

function stringsIn(text: string): string[] | undefined {
  if (!/^\s*[[{"]/.test(text)) return undefined
  try {
    return stringsOf(JSON.parse(text))
  } catch {
    // Only looked like JSON.
    return undefined
  }
}

function stringsOf(value: unknown): string[] {
  if (typeof value === 'string') return [value]
  if (typeof value !== 'object' || value === null) return []
  return Object.entries(value).flatMap(([name, inner]) => [name, ...stringsOf(inner)])
}
