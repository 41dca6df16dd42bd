import { expect, test } from 'vitest'
import { credentialsOf, credentialTerm, hosts } from './network-terms.ts'

const header = credentialTerm('headers', { TOKEN: 'the value' })
const placeholder = credentialTerm('placeholders', { TOKEN: 'the value' })

test('credentials name a stored secret or a variable, with what stands before it', () => {
  const given = [
    ...header('api.test: x-api-key=secret:KEY'),
    ...header('api.test:Authorization=Bearer secret:KEY'),
    ...header('b.test Authorization=token env:TOKEN'),
    ...placeholder('b.test: BOT_TOKEN=env:TOKEN'),
  ]
  expect(credentialsOf(given)).toEqual({
    'api.test': {
      headers: { 'x-api-key': { secret: 'KEY' }, Authorization: { secret: 'KEY', prefix: 'Bearer ' } },
    },
    'b.test': { headers: { Authorization: 'token the value' }, placeholders: { BOT_TOKEN: 'the value' } },
  })
})

test.each(['api.test: x-api-key=sk-the-value', 'api.test', 'x-api-key=secret:KEY', 'api.test: x=secret:', ''])(
  '%j is refused without being repeated',
  (text) => {
    expect(() => header(text)).toThrow('Write it like "HOST: HEADER=secret:NAME"')
    expect(() => header(text)).not.toThrow('sk-the-value')
  },
)

test('a variable that is not set is named', () => {
  expect(() => header('api.test: x=env:NONE')).toThrow('NONE is not set here.')
})

test('hosts come one by one or with commas', () => {
  expect(hosts('c.test', hosts('a.test, *.b.test'))).toEqual(['a.test', '*.b.test', 'c.test'])
  expect(() => hosts('a.test,')).toThrow('name of a host')
})
