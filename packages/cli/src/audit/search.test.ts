import { gzipSync } from 'node:zlib'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { allForms, compressed, encodings, type Form, textForms } from './forms.ts'
import { type Item, openSearch } from './search.ts'

const value = 'sk-test/4+q=Zk"\\x'

/** These bytes, cut into pieces. */
function item(bytes: Buffer | string, cuts: number[] = [], text = false): Item {
  const whole = Buffer.from(bytes)
  const at = [0, ...cuts.map((cut) => cut % (whole.length + 1)).toSorted((a, b) => a - b), whole.length]
  return { where: 'here', text, read: () => at.slice(1).map((end, i) => whole.subarray(at[i], end)) }
}

async function formsIn(what: Item, wanted = value): Promise<Form[]> {
  const { found } = await openSearch({ wanted, other: 'something else altogether' })(what)
  expect(found.filter(({ name }) => name !== 'wanted')).toEqual([])
  return found.map(({ form }) => form)
}

const secrets = fc.string({ unit: 'grapheme-ascii', minLength: 8, maxLength: 80 })
const noise = fc.uint8Array({ maxLength: 3000 }).map((bytes) => Buffer.from(bytes))
const names = Object.keys(encodings) as (keyof typeof encodings)[]

test('a value is found however it is written, whatever stands around it and wherever it is cut', async () => {
  const where = fc.record({ before: noise, after: noise, cuts: fc.array(fc.nat(), { maxLength: 8 }) })
  await fc.assert(
    fc.asyncProperty(secrets, fc.constantFrom(...names), where, async (secret, name, { before, after, cuts }) => {
      const bytes = Buffer.concat([before, Buffer.from(encodings[name].write(secret)), after])
      // Where an encoding leaves a value as it is, it is found as raw.
      expect(await formsIn(item(bytes, cuts), secret)).not.toEqual([])
    }),
    { numRuns: 400 },
  )
})

test.each(names)('%s is told by its name', async (name) => {
  expect(await formsIn(item(encodings[name].write(value)))).toEqual([name])
})

test('other spellings are found too', async () => {
  const spellings: Record<string, string> = {
    hex: Buffer.from(value).toString('hex').toUpperCase(),
    base64: Buffer.from(value).toString('base64url'),
    'base64+1': Buffer.from(`:${value}`).toString('base64'),
    'base64+2': Buffer.from(`u:${value} and more`).toString('base64'),
    url: encodeURIComponent(value),
    json: JSON.stringify(value).replaceAll('/', '\\/'),
  }
  for (const [form, text] of Object.entries(spellings)) expect(await formsIn(item(`<${text}>`)), text).toEqual([form])
})

describe('inside of what is compressed', () => {
  test('a whole file, of any size', async () => {
    const large = Buffer.concat([Buffer.alloc(9_000_000, 'filler '), Buffer.from(value), Buffer.alloc(9_000_000, 'x')])
    const random = Buffer.from(Array.from({ length: 200_000 }, (_, i) => (i * 2_654_435_761) >>> 24))
    const packed = gzipSync(Buffer.concat([random, large]), { level: 1 })
    expect(packed.length).toBeGreaterThan(64 * 1024)
    expect(await formsIn(item(packed, [10, 70_000]))).toEqual(['raw', 'gzip'])
  })

  test('a small one in the middle of another, over the edge of what is looked at in one go', async () => {
    for (const before of [0, 5, 4 * 1024 * 1024 - 20]) {
      const bytes = Buffer.concat([Buffer.alloc(before, '-'), compressed(value), Buffer.alloc(5_000_000, '-')])
      expect(await formsIn(item(bytes, [4 * 1024 * 1024]))).toEqual(['raw', 'gzip'])
    }
  })

  test('bytes that only begin like it, and damaged ones, are no obstacle', async () => {
    const damaged = gzipSync(Buffer.from(`${value}${'y'.repeat(100_000)}`)).subarray(0, 150)
    expect(await formsIn(item(Buffer.concat([Buffer.from([0x1f, 0x8b, 8, 0xff, 0xff]), damaged])))).toContain('gzip')
  })
})

describe('text', () => {
  test('is taken apart: JSON in JSON, lines of it, events, base64 in its strings', async () => {
    const inner = JSON.stringify({ deep: [{ it: encodings.json.write(value) }] })
    expect(await formsIn(item(JSON.stringify({ a: inner }), [], true))).toEqual(['json'])
    expect(await formsIn(item(`{"n":1}\n{"n":${JSON.stringify(value)}}\n`, [], true))).toContain('raw')
    expect(await formsIn(item(`id: 1\ndata: {"text":${JSON.stringify(value)}}\n\n`, [], true))).toContain('raw')
    const packed = JSON.stringify({ blob: compressed(value).toString('base64') })
    expect(await formsIn(item(packed, [], true))).toEqual(['raw', 'gzip'])
  })

  test('that only looks like JSON is looked at as it is', async () => {
    expect(await formsIn(item(`{"a": ${value}`, [], true))).toEqual(['raw'])
  })
})

test('every form can be told', () => {
  expect(allForms).toEqual([...textForms, 'gzip'])
})
