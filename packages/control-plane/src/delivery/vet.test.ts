import { expect, test } from 'vitest'
import { vetUrl } from './vet.ts'

test.each([
  ['http://example.com/', 'It must begin with https://'],
  ['ftp://example.com/', 'It must begin with https://'],
  ['https://user@example.com/', 'It must not hold a user or password'],
  ['https://user:secret@example.com/', 'It must not hold a user or password'],
  ['https://localhost/', '"localhost" is not a public name'],
  ['https://LOCALHOST./', '"localhost." is not a public name'],
  ['https://x.localhost/', '"x.localhost" is not a public name'],
  ['https://metadata.google.internal/', '"metadata.google.internal" is not a public name'],
  ['https://printer/', '"printer" is not a public name'],
  ['https://127.0.0.1/', '127.0.0.1 is not a public address (loopback)'],
  ['https://0x7f.1/', '127.0.0.1 is not a public address (loopback)'],
  ['https://2130706433/', '127.0.0.1 is not a public address (loopback)'],
  ['https://[::ffff:10.0.0.1]/', '::ffff:a00:1 is not a public address (reserved)'],
  ['https://[::1]/', '::1 is not a public address (reserved)'],
])('%s is refused when it is stored: %s', (url, reason) => {
  expect(() => vetUrl(url, [])).toThrow(
    expect.objectContaining({ code: 'VALIDATION_ERROR', details: [{ path: 'callbackUrl', message: reason }] }),
  )
})

test('a refusal never shows the password', () => {
  expect(() => vetUrl('https://user:hunter2@example.com/', [])).not.toThrow(/hunter2/)
})

test('public https is accepted; plain http only where the operator has opened a range', () => {
  expect(vetUrl('https://example.com:8443/hook?x=1', []).href).toBe('https://example.com:8443/hook?x=1')
  expect(vetUrl('http://127.0.0.1:9/', ['127.0.0.0/8']).port).toBe('9')
  expect(() => vetUrl('http://8.8.8.8/', ['127.0.0.0/8'])).toThrow('must begin with https://')
})
