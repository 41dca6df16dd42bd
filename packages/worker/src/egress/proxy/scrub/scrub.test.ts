import fc from 'fast-check'
import { expect, test } from 'vitest'
import { compileSecrets, openScrub, type Secrets, scrubText } from './index.ts'

const key = 'sk-ant-api03-Zm9v/bar+"q\\z_9x'
const plain = 'tok-AbC123xyz789'

/** Every way of writing that is promised, by name. */
const writings: Record<string, (secret: string) => string> = {
  raw: (secret) => secret,
  encodeURIComponent: (secret) => encodeURIComponent(secret),
  form: (secret) => new URLSearchParams([['', secret]]).toString().slice(1),
  'every byte as %XX': (secret) => each(secret, (byte) => `%${hex(byte).toUpperCase()}`),
  'every byte as %xx': (secret) => each(secret, (byte) => `%${hex(byte)}`),
  'some bytes as %XX': (secret) => each(secret, (byte, at) => (at % 3 ? String.fromCharCode(byte) : `%${hex(byte)}`)),
  'encoded for a URL twice': (secret) => encodeURIComponent(each(secret, (byte) => `%${hex(byte)}`)),
  hexadecimal: (secret) => each(secret, hex),
  HEXADECIMAL: (secret) => each(secret, hex).toUpperCase(),
  JSON: (secret) => JSON.stringify(secret).slice(1, -1),
  'JSON in JSON': (secret) => JSON.stringify(JSON.stringify(secret)).slice(3, -3),
  'JSON in JSON in JSON': (secret) => JSON.stringify(JSON.stringify(JSON.stringify(secret))).slice(7, -7),
  'JSON with \\/': (secret) => JSON.stringify(secret).slice(1, -1).replaceAll('/', '\\/'),
  'JSON with \\uXXXX': (secret) => each(secret, (byte) => `\\u00${hex(byte).toUpperCase()}`),
  'JSON with \\uxxxx': (secret) => each(secret, (byte) => `\\u00${hex(byte)}`),
  'JSON with some \\uxxxx': (secret) =>
    each(secret, (byte, at) => (at % 2 ? String.fromCharCode(byte) : `\\u00${hex(byte)}`)),
}

const hex = (byte: number) => byte.toString(16).padStart(2, '0')
const each = (text: string, write: (byte: number, at: number) => string) =>
  [...Buffer.from(text, 'latin1')].map(write).join('')

/** Scrubs what comes in these pieces. */
function scrub(secrets: Secrets, pieces: Buffer[], type = 'text/plain'): string {
  const { push, end } = openScrub(secrets, type)
  return Buffer.concat([...pieces.map(push), end()]).toString('latin1')
}

function split(bytes: Buffer, places: number[]): Buffer[] {
  const sorted = [0, ...places.map((place) => place % (bytes.length + 1)), bytes.length].toSorted((a, b) => a - b)
  return sorted.slice(1).map((to, index) => bytes.subarray(sorted[index], to))
}

test.each(Object.entries(writings))('a secret is found as %s, split anywhere', (_, write) => {
  const secrets = compileSecrets([key, plain])
  for (const secret of [key, plain]) {
    const bytes = Buffer.from(`before ${write(secret)} after ${write(secret)}`, 'latin1')
    for (let place = 0; place <= bytes.length; place++) {
      expect(scrub(secrets, split(bytes, [place]))).toBe('before *** after ***')
    }
    expect(
      scrub(
        secrets,
        [...bytes].map((byte) => Buffer.from([byte])),
      ),
    ).toBe('before *** after ***')
  }
})

test('base64 of anything around a secret tells no more of it than a few bits', () => {
  const secrets = compileSecrets([key, plain])
  fc.assert(
    fc.property(
      fc.constantFrom(key, plain),
      fc.uint8Array({ maxLength: 7 }),
      fc.uint8Array({ maxLength: 7 }),
      fc.constantFrom('base64', 'base64url'),
      fc.boolean(),
      fc.array(fc.nat(), { maxLength: 4 }),
      (secret, before, after, encoding, padded, places) => {
        const whole = Buffer.concat([before, Buffer.from(secret), after])
        const text = whole.toString(encoding as 'base64').replace(/=+$/, (end) => (padded ? end : ''))
        const answer = scrub(secrets, split(Buffer.from(`"${text}"`), places))
        const rest = answer.replaceAll('"', '').split('***')
        expect(rest).toHaveLength(2)
        // One character before and one behind may hold bits of the secret, with some of what is around it.
        expect(rest[0]?.length).toBeLessThanOrEqual(Math.ceil((before.length * 8) / 6))
        expect(rest[1]?.replaceAll('=', '').length).toBeLessThanOrEqual(Math.ceil((after.length * 8) / 6) + 1)
      },
    ),
    { numRuns: 2000 },
  )
})

const anything = fc.uint8Array({ maxLength: 40 }).map((bytes) => Buffer.from(bytes).toString('latin1'))
const character = fc
  .integer({ min: 0x20, max: 0xff })
  .filter((code) => code < 0x7f || code >= 0x80)
  .map((code) => String.fromCharCode(code))
const value = fc
  .array(character, { minLength: 8, maxLength: 40 })
  .map((letters) => letters.join(''))
  .filter((text) => text.trim() === text)

test('any secrets, written in any way, in any text, in any pieces', () => {
  fc.assert(
    fc.property(
      fc.array(value, { minLength: 1, maxLength: 4 }),
      fc.array(fc.tuple(anything, fc.nat(), fc.constantFrom(...Object.keys(writings))), { minLength: 1, maxLength: 4 }),
      fc.array(fc.nat(), { maxLength: 8 }),
      (values, parts, places) => {
        const secrets = compileSecrets(values)
        const ascii = (text: string) => /^[ -~]+$/.test(text)
        const written = parts.map(([text, which, how]) => {
          const secret = values[which % values.length] ?? ''
          // What JavaScript escapes is text: of other characters it makes UTF-8.
          const writing = writings[ascii(secret) ? how : 'every byte as %XX']?.(secret) ?? ''
          return { text, writing }
        })
        const bytes = Buffer.from(written.map(({ text, writing }) => text + writing).join(''), 'latin1')
        const answer = scrub(secrets, split(bytes, places))
        for (const { writing } of written) expect(answer).not.toContain(writing)
        expect(answer).toBe(scrub(secrets, [bytes]))
      },
    ),
    { numRuns: 1500 },
  )
})

test('what holds no secret stays as it is, to the byte', () => {
  const secrets = compileSecrets(['aaaabaaaabaaaab', 'abababababab', '%41%42%43%44', '\\\\\\\\u0061'])
  const text = fc.oneof(
    fc.uint8Array({ maxLength: 300 }),
    fc.string({ unit: fc.constantFrom(...'ab%4\\u061'), maxLength: 300 }).map((so) => Buffer.from(so)),
  )
  fc.assert(
    fc.property(text, fc.array(fc.nat(), { maxLength: 8 }), (some, places) => {
      const bytes = Buffer.from(some)
      const answer = scrub(secrets, split(bytes, places))
      expect(answer).toBe(scrub(secrets, [bytes]))
      if (!answer.includes('***')) expect(answer).toBe(bytes.toString('latin1'))
    }),
    { numRuns: 3000 },
  )
})

test('secrets that lie in each other or overlap leave no rest', () => {
  const secrets = compileSecrets(['abcdefghij', 'cdefghijkl', 'abcdefghijklmnop', 'efghijkl'])
  for (const [text, expected] of [
    ['<abcdefghij>', '<***>'],
    ['<abcdefghijkl>', '<***>'],
    ['<abcdefghijklmnop>', '<***>'],
    ['<abcdefghijklmnoq>', '<***mnoq>'],
    ['<abcdefghijabcdefghij>', '<******>'],
    ['<abcdefghabcdefghi>', '<abcdefghabcdefghi>'],
  ] as const) {
    const bytes = Buffer.from(text)
    for (let place = 0; place <= bytes.length; place++) {
      expect(scrub(secrets, split(bytes, [place, place + 3]))).toBe(expected)
    }
  }
})

test('the value behind a scheme is a secret of its own, and so are user and password of Basic', () => {
  const basic = Buffer.from('somebody-known:correct-horse').toString('base64')
  const secrets = compileSecrets(['Bearer abcdefgh123', `Basic ${basic}`, 'session="0123456789abcdefXY"; theme=dark'])
  expect(scrubText(secrets, 'token=abcdefgh123')).toBe('token=***')
  expect(scrubText(secrets, 'Bearer abcdefgh123')).toBe('Bearer ***')
  expect(scrubText(secrets, `x correct-horse ${basic} somebody-known`)).toBe('x *** *** ***')
  expect(scrubText(secrets, '{"session":"0123456789abcdefXY"}')).toBe('{"session":"***"}')
  expect(scrubText(secrets, 'dark x-access-token')).toBe('dark x-access-token')
})

test('a token that git is given as Basic is found', () => {
  const secrets = compileSecrets(['Bearer ghp_0123456789abcdef'])
  const header = `Basic ${Buffer.from('x-access-token:ghp_0123456789abcdef').toString('base64')}`
  expect(scrubText(secrets, header)).not.toContain(Buffer.from('0123456789').toString('base64').slice(0, 12))
  expect(scrubText(secrets, header)).toMatch(/^Basic [A-Za-z0-9+/]{18,22}\*\*\*[A-Za-z0-9+/]?=*$/)
})

test('characters beyond ASCII are found as one byte and as UTF-8', () => {
  const secrets = compileSecrets(['pässwörd-ÿ'])
  for (const text of ['pässwörd-ÿ', 'p\\u00e4ssw\\u00F6rd-\\u00ff', encodeURIComponent('pässwörd-ÿ')]) {
    expect(scrub(secrets, [Buffer.from(`<${text}>`)])).toBe('<***>')
    expect(scrub(secrets, [Buffer.from(`<${text}>`, 'latin1')])).toBe('<***>')
    expect(scrubText(secrets, `<${text} ✓>`)).toBe('<*** ✓>')
  }
})

test('seven characters are not searched, and nothing is a secret of nobody', () => {
  expect(compileSecrets(['1234567', 'Bearer x']).none).toBe(false)
  expect(compileSecrets(['1234567']).none).toBe(true)
  expect(scrubText(compileSecrets(['1234567']), '12345678')).toBe('12345678')
})

test('only what may be the beginning of a secret is held back, and only while it may', () => {
  const { push, end } = openScrub(compileSecrets([plain]), 'text/plain')
  expect(String(push(Buffer.from('hello tok-A')))).toBe('hello ')
  expect(String(push(Buffer.from('x and on')))).toBe('tok-Ax and on')
  expect(String(push(Buffer.from(' %74')))).toBe(' ')
  expect(String(end())).toBe('%74')
})

test('what nothing follows goes on after a moment; the rest of the secret is still found', async () => {
  const released: string[] = []
  const { push, end } = openScrub(compileSecrets([plain]), 'text/plain', (bytes) => released.push(String(bytes)))
  expect(String(push(Buffer.from('say t')))).toBe('say ')
  await expect.poll(() => released).toEqual(['t'])
  expect(String(push(Buffer.from(plain.slice(1, 12))))).toBe('')
  await expect.poll(() => released).toEqual(['t', '***'])
  expect(String(push(Buffer.from(`${plain.slice(12)}!`)))).toBe('!')
  expect(String(end())).toBe('')
})

test('a search costs no more than a look, whoever wrote the text', () => {
  const secrets = compileSecrets([`Bearer sk-ant-api03-${'abcDEF0123_-xyz'.repeat(6)}`])
  const hostile = ['sk-ant-api03-', '%73%6b', '\\u0073', '%2525', '\\\\\\\\', '736b2d', 's'].map((text) =>
    Buffer.from(text.repeat(100_000)),
  )
  for (const bytes of hostile) {
    const began = performance.now()
    expect(
      scrub(
        secrets,
        split(
          bytes,
          Array.from({ length: 50 }, (_, at) => at * 10_007),
        ),
      ),
    ).toHaveLength(bytes.length)
    expect(performance.now() - began).toBeLessThan(3000)
  }
})

test.each([
  ['in one piece', 1 << 20, 1 << 20],
  ['in many', 1_000, 1 << 20],
  ['byte by byte', 1, 1 << 17],
])('a secret that repeats itself holds nobody up, whose text does so too and comes %s', (_, size, total) => {
  const periodic = `${'a'.repeat(7_999)}b`
  const secrets = compileSecrets([periodic])
  const { push, end } = openScrub(secrets, 'text/plain')
  const chunk = Buffer.alloc(size, 'a')
  const began = performance.now()
  let answer = ''
  for (let at = 0; at < total; at += size) answer += push(chunk)
  answer += push(Buffer.from('b'))
  answer += end()
  expect(performance.now() - began).toBeLessThan(5_000)
  // What it would cost too much to search is masked; nothing of it goes on.
  expect(answer).toMatch(/^a*(?:\*\*\*)+$/)
  expect(scrubText(secrets, 'a'.repeat(100_000))).toMatch(/^a{0,1000}\*\*\*$/)
  expect(scrubText(secrets, `<${'a'.repeat(8_000)}b>`)).toMatch(/^<a?\*\*\*>?$/)
})

test('a long secret that does not repeat itself is found at any place and in small pieces', () => {
  const long = Array.from({ length: 800 }, (_, at) => Math.imul(at + 1, 0x9e3779b1) >>> 8)
    .join('-')
    .slice(0, 8_000)
  const secrets = compileSecrets([long])
  const text = Buffer.from(`<${long}> ${encodeURIComponent(long)} ${Buffer.from(long).toString('hex')} end`)
  expect(scrub(secrets, [text])).toBe('<***> *** *** end')
  expect(
    scrub(
      secrets,
      split(
        text,
        Array.from({ length: 400 }, (_, at) => at * 101),
      ),
    ),
  ).toBe('<***> *** *** end')
})

const letters = (seed: number, length: number) =>
  Array.from({ length }, (_, at) => (Math.imul(seed * 7919 + at + 1, 0x9e3779b1) >>> 28).toString(16)).join('')

test.each<[string, (seed: number) => string]>([
  ['keys', (seed) => `Bearer ${letters(seed, 320)}`],
  [
    'names and passwords',
    (seed) => `Basic ${Buffer.from(`${letters(seed, 118)}:${letters(-seed, 118)}`).toString('base64')}`,
  ],
  ['cookies', (seed) => Array.from({ length: 16 }, (_, at) => `k=${letters(seed * 16 + at, 17)}`).join(';')],
  [
    'one cookie header of 800',
    (seed) => (seed > 4 ? '' : Array.from({ length: 800 }, (_, at) => `k=${letters(seed + at * 99, 17)}`).join(';')),
  ],
])('as many secrets as a session may have are made ready in a moment: %s', (_, make) => {
  const values = Array.from({ length: 200 }, (_, seed) => make(seed + 1)).filter(Boolean)
  compileSecrets(['warm and ready']).matcher()
  const before = process.memoryUsage().rss
  const began = performance.now()
  const secrets = compileSecrets(values)
  secrets.matcher()
  expect(performance.now() - began).toBeLessThan(500)
  expect(process.memoryUsage().rss - before).toBeLessThan(50_000_000)
  for (const value of values.slice(-3)) expect(scrubText(secrets, `x ${value.replace(/^\w+ /, '')}`)).toBe('x ***')
})

test('a list has its first values searched for alone, and is a secret as a whole', () => {
  const pairs = Array.from({ length: 40 }, (_, at) => `k=${letters(at, 20)}`)
  const secrets = compileSecrets([pairs.join('; ')])
  expect(scrubText(secrets, `"${letters(15, 20)}" "${letters(16, 20)}"`)).toBe(`"***" "${letters(16, 20)}"`)
  expect(scrubText(secrets, `<${pairs.join('; ')}>`)).toBe('<***>')
})

test.each(['SSWS', 'Bot', 'GenieKey', 'Foo-2'])('what follows the scheme %s is a secret of its own', (scheme) => {
  const secrets = compileSecrets([`${scheme} 00aBcD-eFgH_iJ`])
  expect(scrubText(secrets, 'you sent 00aBcD-eFgH_iJ')).toBe('you sent ***')
  expect(scrubText(secrets, `you sent ${scheme} 00aBcD-eFgH_iJ`)).toBe('you sent ***')
  expect(scrubText(secrets, `${scheme} is a scheme`)).toBe(`${scheme} is a scheme`)
})

test.each<[string, string, string]>([
  ['\\n', '\n', ''],
  ['\\r\\n', '\r\n', ''],
  ['\\n in JSON', '\n', 'JSON'],
  ['\\r\\n in JSON', '\r\n', 'JSON'],
  ['\\r\\n in JSON in JSON', '\r\n', 'JSON in JSON'],
])('base64 in lines that end in %s, split anywhere', (_, newline, json) => {
  const secrets = compileSecrets([key])
  for (const before of ['', '1', '22']) {
    for (let length = 1; length <= 20; length += 3) {
      const lines =
        Buffer.from(before + key)
          .toString('base64')
          .match(new RegExp(`.{1,${length}}`, 'g')) ?? []
      const text = `<${writings[json || 'raw']?.(lines.join(newline)) ?? ''}>`
      const bytes = Buffer.from(text)
      const answer = scrub(secrets, [bytes])
      expect(answer.replaceAll(/\\+[rn]|[\r\n]/g, '')).toMatch(/^<[^<>]{0,3}\*{3}[^<>]{0,3}>$/)
      for (let place = 0; place <= bytes.length; place += 5) expect(scrub(secrets, split(bytes, [place]))).toBe(answer)
    }
  }
})
