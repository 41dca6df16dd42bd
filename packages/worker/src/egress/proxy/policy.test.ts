import { expect, test } from 'vitest'
import type { SlotCredential } from '../messages.ts'
import { compileRules, isAmbiguous, plainName } from './policy.ts'
import { scrubText } from './scrub/index.ts'

const credential = (rest: Partial<SlotCredential> = {}): SlotCredential => ({
  headers: { 'x-key': 'secret-value' },
  placeholders: [],
  ...rest,
})

const rulesOf = (allow: string[], credentials: Record<string, SlotCredential> = {}, operators: string[] = []) =>
  compileRules({ allow, operators, credentials, auditLog: false })

test.each([
  ['API.Example.com.', 'api.example.com'],
  ['_dmarc.example.com', '_dmarc.example.com'],
  ['xn--mnchen-3ya.de', 'xn--mnchen-3ya.de'],
])('%s is the name %s', (text, name) => expect(plainName(text)).toBe(name))

test.each([
  '',
  '.',
  'localhost',
  'example.com..',
  'a..b',
  '-a.com',
  'a-.com',
  'münchen.de',
  'a b.com',
  'a%2eb.com',
  'a\0.com',
  'a\n.com',
  'user@a.com',
  'a.com#',
  'a.com/',
  '1.2.3.4',
  '0x7f.1',
  '[::1]',
  `${'a'.repeat(64)}.com`,
  `${'a.'.repeat(130)}com`,
])('%j is no plain name', (text) => expect(plainName(text)).toBeUndefined())

test('an empty list allows nothing', () => {
  expect(rulesOf([]).hostOf('example.com')).toBeUndefined()
})

test('a wildcard stands for sub-domains only, of that name only', () => {
  const { hostOf } = rulesOf(['*.github.com'])
  for (const name of ['api.github.com', 'a.b.github.com']) expect(hostOf(name)).toBeDefined()
  for (const name of ['github.com', 'notgithub.com', 'github.com.evil.com', 'com']) expect(hostOf(name)).toBeUndefined()
})

test('an exact name beats a wildcard, and a name with a credential is allowed', () => {
  const { hostOf, exact } = rulesOf(['*.example.com'], { 'api.example.com': credential() }, ['*.example.com'])
  expect(hostOf('api.example.com')).toMatchObject({ operator: false, credential: expect.anything() })
  expect(hostOf('other.example.com')).toEqual({ operator: true })
  expect(exact).toEqual(['api.example.com'])
})

test.each([
  ['/v1/*', '/v1/a/b', true],
  ['/v1/*', '/v1', false],
  ['/v1/*', '/v2/a', false],
  ['/bot*/send', '/botX/send', true],
  ['/bot*/send', '/bot/sendX', false],
  ['/a*a', '/a', false],
  ['/*/x/*/y', '/1/x/2/y', true],
  ['/*/x/*/y', '/1/x/y', false],
  ['/a.c', '/abc', false],
  ['/**', '/a', true],
])('%s and %s: %s', (pattern, path, applies) => {
  const { hostOf } = rulesOf([], { 'a.test': credential({ paths: [pattern] }) })
  expect(hostOf('a.test')?.credential?.appliesTo('GET', path)).toBe(applies)
})

test('many stars take no time that a sandbox could choose', () => {
  const { hostOf } = rulesOf([], { 'a.test': credential({ paths: [`/${'*a'.repeat(100)}*b`] }) })
  const startedAt = performance.now()
  expect(hostOf('a.test')?.credential?.appliesTo('GET', `/${'a'.repeat(60_000)}`)).toBe(false)
  expect(performance.now() - startedAt).toBeLessThan(200)
})

test('a credential for some methods is for no other', () => {
  const { hostOf } = rulesOf([], { 'a.test': credential({ methods: ['GET'] }) })
  expect(hostOf('a.test')?.credential?.appliesTo('GET', '/')).toBe(true)
  expect(hostOf('a.test')?.credential?.appliesTo('get', '/')).toBe(false)
  expect(hostOf('a.test')?.credential?.appliesTo('POST', '/')).toBe(false)
})

test.each([
  '/a/../b',
  '/..',
  '/./a',
  '/a/.',
  '/%2E%2e/a',
  '/a%2Fb',
  '/a%5cb',
  '/a\\b',
  '/a//b',
  '/a%00',
  '/a%7F',
  '/..;x/a',
])('%s could be read in two ways', (path) => expect(isAmbiguous(path)).toBe(true))

test.each(['/', '/a/b', '/a.b/c..d', '/...', '/a%20b', '/.well-known/x', '/a;b=c'])('%s has one reading', (path) =>
  expect(isAmbiguous(path)).toBe(false),
)

test('what is set beside a key is not searched for, the key is', () => {
  const headers = { 'x-api-key': 'sk-ant-0123456789', 'Anthropic-Version': '2023-06-01' }
  const { secrets } = rulesOf([], { 'api.example.com': credential({ headers }) })
  expect(scrubText(secrets, 'on 2023-06-01 sk-ant-0123456789 was made')).toBe('on 2023-06-01 *** was made')
})
