import { expect, test } from 'vitest'
import type { SlotCredential } from '../messages.ts'
import { isGit, type Sending, sentHeaders } from './inject.ts'
import { compileRules } from './policy.ts'

const standIn = 'paws-stand-in-00000001'

function sending(credential?: Partial<SlotCredential>, rest: Partial<Sending> = {}): Sending {
  const whole = { headers: {}, placeholders: [], ...credential }
  const rules = compileRules({ allow: [], operators: [], credentials: { 'a.test': whole }, auditLog: false })
  return {
    name: 'a.test',
    searched: credential !== undefined,
    credential: credential && rules.hostOf('a.test')?.credential,
    git: false,
    dropLength: false,
    dropEncoding: false,
    ...rest,
  }
}

const own = ['host', 'a.test']
const searched = ['accept-encoding', 'identity']

test('without a credential headers go out as they came, but for those of the connection', () => {
  const came = [
    'Host',
    'x',
    'Accept',
    '*/*',
    'Authorization',
    'mine',
    'Connection',
    'x-a',
    'X-A',
    '1',
    'TE',
    'trailers',
  ]
  expect(sentHeaders(came, sending())).toEqual([...own, 'Accept', '*/*', 'Authorization', 'mine'])
})

test('a credential replaces what the client sent, in any case and number, and every other sign-in', () => {
  const came = [
    'X-API-KEY',
    '1',
    'x-api-key',
    '2',
    'Authorization',
    'mine',
    'Cookie',
    'a=b',
    'X-Goog-Api-Key',
    '3',
    'x-b',
    '4',
  ]
  const sent = sentHeaders(came, sending({ headers: { 'x-api-key': 'secret-value' } }))
  expect(sent).toEqual([...own, 'x-b', '4', ...searched, 'x-api-key', 'secret-value'])
})

test('what could have its answer come in pieces or packed is taken out', () => {
  const came = ['Range', 'bytes=0-1', 'If-Range', 'x', 'Accept-Encoding', 'gzip']
  expect(sentHeaders(came, sending({ headers: { a: 'secret-value' } }))).toEqual([
    ...own,
    ...searched,
    'a',
    'secret-value',
  ])
})

test('a header that makes another method or path of the request does not go with a credential', () => {
  const came = ['X-HTTP-Method-Override', 'DELETE', 'X-Original-URL', '/admin']
  expect(sentHeaders(came, sending({ headers: { a: 'secret-value' } }))).toEqual([
    ...own,
    ...searched,
    'a',
    'secret-value',
  ])
})

test('a name with "_" for "-" is the same name, for servers that read it so', () => {
  const came = [
    ...['X_Api_Key', '1', 'x-api_key', '2', 'X_Auth_Token', '3', 'X_HTTP_Method_Override', 'DELETE'],
    ...['X_Original_URL', '/', 'Accept_Encoding', 'gzip', 'Transfer_Encoding', 'chunked', 'Content_Length', '1'],
    ...['Connection', 'x-named', 'X_Named', '4', 'x_b', '5'],
  ]
  for (const name of ['x-api-key', 'X_Api_Key']) {
    const sent = sentHeaders(came, sending({ headers: { [name]: 'secret-value' } }, { dropLength: true }))
    expect(sent).toEqual([...own, 'x_b', '5', ...searched, name, 'secret-value'])
  }
})

test('placeholders are swapped, in Basic too, and their header stays beside an added one', () => {
  const basic = (text: string) => `Basic ${Buffer.from(text).toString('base64')}`
  const came = ['Authorization', basic(`user:${standIn}`), 'X-Token', standIn]
  const credential = { headers: { a: 'secret-value' }, placeholders: [{ standIn, value: 'real-value' }] }
  expect(sentHeaders(came, sending(credential))).toEqual([
    ...own,
    ...['Authorization', basic('user:real-value'), 'X-Token', 'real-value'],
    ...searched,
    ...['a', 'secret-value'],
  ])
})

test('for git a bearer becomes a password', () => {
  const sent = sentHeaders([], sending({ headers: { Authorization: 'Bearer token-value' } }, { git: true }))
  expect(sent.at(-1)).toBe(`Basic ${Buffer.from('x-access-token:token-value').toString('base64')}`)
})

test.each([
  ['/a/b.git/info/refs', '?service=git-upload-pack', true],
  ['/a/b.git/info/refs', '?x=1&service=git-receive-pack', true],
  ['/a/b/git-upload-pack', '', true],
  ['/a/b/git-receive-pack', '', true],
  ['/a/b.git/info/lfs/objects/batch', '', true],
  ['/a/b.git/info/refs', '', false],
  ['/repos/a/b', '?service=git-upload-pack', false],
])('%s%s: git is %s', (path, query, expected) => expect(isGit(path, query)).toBe(expected))
