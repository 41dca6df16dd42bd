import { gzipSync } from 'node:zlib'

/*
 * The worker's scrubber spells values out as well, and this is written a second time on purpose: an audit that shared the
 * scrubber's code would share its blind spots.
 */

/** A way to write a value down. */
interface Encoding {
  /** Every spelling of it that is searched for */
  spellings(value: string): string[]
  /** One of them, as a program would write it */
  write(value: string): string
}

const hex = (value: string) => Buffer.from(value).toString('hex')
const perByte = (value: string) => hex(value).replace(/../g, '%$&')
const perUnit = (value: string) =>
  [...Array(value.length).keys()].map((at) => `\\u${value.charCodeAt(at).toString(16).padStart(4, '0')}`).join('')
const lowerEscapes = (text: string) => text.replace(/%../g, (code) => code.toLowerCase())

/**
 * Base64 of a value that others stand around: three ways, by how many bytes are before it. What depends on them is cut
 * away.
 */
function base64(before: number): Encoding {
  const encode = (value: string) => Buffer.concat([Buffer.alloc(before, '.'), Buffer.from(value), Buffer.from('..')])
  return {
    write: (value) => encode(value).toString('base64'),
    spellings(value) {
      const end = Math.floor(((before + Buffer.byteLength(value)) * 8) / 6)
      const own = (text: string) => text.slice(Math.ceil((before * 8) / 6), end)
      return [own(encode(value).toString('base64')), own(encode(value).toString('base64url'))]
    },
  }
}

/** Every way in which a value is looked for; `gzip` says that it was inside of something compressed. */
export const encodings = {
  raw: { spellings: (value) => [value], write: (value) => value },
  hex: { spellings: (value) => [hex(value), hex(value).toUpperCase()], write: hex },
  base64: base64(0),
  'base64+1': base64(1),
  'base64+2': base64(2),
  url: {
    write: perByte,
    spellings(value) {
      const upper = [encodeURIComponent(value), perByte(value).toUpperCase()]
      const form = new URLSearchParams({ '': value }).toString().slice(1)
      return [...upper, form, ...upper.map(lowerEscapes), lowerEscapes(form)]
    },
  },
  json: {
    write: perUnit,
    spellings(value) {
      const usual = JSON.stringify(value).slice(1, -1)
      const upper = perUnit(value).replace(/[a-f]/g, (digit) => digit.toUpperCase())
      return [usual, usual.replaceAll('/', '\\/'), perUnit(value), upper]
    },
  },
} satisfies Record<string, Encoding>

export type Form = keyof typeof encodings | 'gzip'

const written = Object.entries(encodings) as [Exclude<Form, 'gzip'>, Encoding][]

export interface Spelling {
  form: Form
  bytes: Buffer
}

/** All that is searched for when a value is. */
export function spellingsOf(value: string): Spelling[] {
  const seen = new Map<string, Form>()
  for (const [form, { spellings }] of written) {
    // Where an encoding changes nothing it is the raw one that was found.
    for (const spelling of spellings(value)) if (!seen.has(spelling)) seen.set(spelling, form)
  }
  return [...seen].map(([text, form]) => ({ form, bytes: Buffer.from(text) }))
}

export const textForms = written.map(([form]) => form)
export const allForms: Form[] = [...textForms, 'gzip']

/** The value in each form that is text, a line each. */
export function writtenOut(value: string): string {
  return written.map(([, { write }]) => `${write(value)}\n`).join('')
}

/** The value compressed. */
export function compressed(value: string): Buffer {
  return gzipSync(`${value}\n`)
}
