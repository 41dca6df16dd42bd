import { HostName } from '@paws/api'
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { plainName } from './policy.ts'

// The contract says which names a session may be given, the proxy which it compares, each by a rule of its own: were they
// to differ, a host would be allowed that nothing ever matches, or a name compared that nobody could have meant.

const inContract = (text: string) => HostName.safeParse(text).data

test.each([
  'example.com',
  'API.Example.com',
  'a.b.c.d.example',
  '_dmarc.example.com',
  'a_b.example.com',
  'xn--mnchen-3ya.de',
  'example.xn--p1ai',
  '1.2.3.a4',
  '0.example',
  `${'a'.repeat(63)}.com`,
  `${'a.'.repeat(125)}com`,
])('%s is a name to both', (text) => {
  expect(inContract(text)).toBe(text.toLowerCase())
  expect(plainName(text)).toBe(text.toLowerCase())
})

test.each([
  '',
  '.',
  'localhost',
  '.example.com',
  'a..b',
  '-a.com',
  'a-.com',
  'example.-com',
  '*.example.com',
  'preset:npm',
  'münchen.de',
  'a b.com',
  ' a.com',
  'a.com\n',
  'a\0.com',
  'a%2eb.com',
  'user@a.com',
  'a.com:443',
  'https://a.com',
  'a.com/',
  '1.2.3.4',
  '0x7f.1',
  '[::1]',
  '::1',
  `${'a'.repeat(64)}.com`,
  `${'a.'.repeat(126)}com`,
])('%j is a name to neither', (text) => {
  expect(inContract(text)).toBeUndefined()
  expect(plainName(text)).toBeUndefined()
})

test('a dot at the end is what resolvers add: the proxy takes it off, the contract has none', () => {
  expect(plainName('example.com.')).toBe('example.com')
  expect(inContract('example.com.')).toBeUndefined()
})

test('they agree on whatever else there is', () => {
  const usual = { arbitrary: fc.constantFrom('a', 'Z', '0', '-', '_', '.', 'com', '.com'), weight: 20 }
  const odd = { arbitrary: fc.integer({ max: 0xff_ff, min: 0 }).map((code) => String.fromCharCode(code)), weight: 1 }
  const text = fc.array(fc.oneof(usual, odd), { maxLength: 12 }).map((parts) => parts.join(''))
  fc.assert(
    fc.property(
      text.filter((name) => !name.endsWith('.')),
      (name) => plainName(name) === inContract(name),
    ),
    { numRuns: 1000 },
  )
})
