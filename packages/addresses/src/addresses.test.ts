import { expect, test } from 'vitest'
import { refusalOf } from './index.ts'

test.each([
  ['127.0.0.1', 'loopback'],
  ['10.1.2.3', 'private'],
  ['172.31.255.255', 'private'],
  ['192.168.0.1', 'private'],
  ['169.254.169.254', 'linkLocal'],
  ['100.64.0.1', 'carrierGradeNat'],
  ['100.100.100.200', 'carrierGradeNat'],
  ['0.0.0.0', 'unspecified'],
  ['255.255.255.255', 'broadcast'],
  ['224.0.0.1', 'multicast'],
  ['192.0.0.192', 'reserved'],
  ['198.18.0.1', 'reserved'],
  ['240.0.0.1', 'reserved'],
  ['168.63.129.16', 'metadata'],
  ['::1', 'reserved'],
  ['::', 'reserved'],
  ['::127.0.0.1', 'reserved'],
  ['::7f00:1', 'reserved'],
  ['::8.8.8.8', 'reserved'],
  ['::ffff:8.8.8.8', 'reserved'],
  ['::ffff:0:8.8.8.8', 'reserved'],
  ['64:ff9b::8.8.8.8', 'reserved'],
  ['64:ff9b:1::a00:1', 'reserved'],
  ['2002:808:808::1', '6to4'],
  ['2001:0:4136:e378:8000:63bf:3fff:fdd2', 'teredo'],
  ['2001:db8::1', 'reserved'],
  ['fc00::1', 'reserved'],
  ['fd00:ec2::254', 'reserved'],
  ['fe80::1', 'reserved'],
  ['fec0::1', 'reserved'],
  ['ff02::1', 'reserved'],
])('%s is refused as %s', (address, reason) => {
  expect(refusalOf(address, [])).toBe(`${address} is not a public address (${reason})`)
})

test.each(['8.8.8.8', '1.1.1.1', '2606:4700:4700::1111', '2a00:1450:4001:80e::200e'])('%s is public', (address) => {
  expect(refusalOf(address, [])).toBeUndefined()
})

test('what the operator has opened is let through, and nothing beside it', () => {
  expect(refusalOf('127.0.0.1', ['127.0.0.0/8'])).toBeUndefined()
  expect(refusalOf('::1', ['127.0.0.0/8', '::1/128'])).toBeUndefined()
  expect(refusalOf('10.0.0.1', ['127.0.0.0/8'])).toMatch('not a public address')
})
