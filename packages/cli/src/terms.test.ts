import { expect, test } from 'vitest'
import { durationMs, envPair, pair, sizeMB, wholeNumber } from './terms.ts'

test.each([
  ['500ms', 500],
  ['30s', 30_000],
  ['1.5h', 5_400_000],
  ['7d', 604_800_000],
])('the duration %s is %i ms', (text, ms) => expect(durationMs(text)).toBe(ms))

test.each(['30', '', 's', '-1s', '1 s', '1w', '1e3s'])('the duration "%s" is refused', (text) => {
  expect(() => durationMs(text)).toThrow('with a unit')
})

test.each([
  ['4096', 4096],
  ['512m', 512],
  ['4g', 4096],
  ['1.5GB', 1536],
])('the size %s is %i MB', (text, size) => expect(sizeMB(text)).toBe(size))

test('other sizes and numbers are refused', () => {
  expect(() => sizeMB('4k')).toThrow('megabytes')
  expect(() => wholeNumber('1.5')).toThrow('whole number')
})

test('a pair is cut at its first "="; the value may be empty or hold more of them', () => {
  expect(pair('b=', pair('a=1=2'))).toEqual({ a: '1=2', b: '' })
  expect(() => pair('=1')).toThrow('NAME=VALUE')
})

test('a bare env name takes the value out here, and is refused without one', () => {
  const collect = envPair({ HERE: 'x' })
  expect(collect('B=2', collect('HERE'))).toEqual({ HERE: 'x', B: '2' })
  expect(() => collect('AWAY')).toThrow('AWAY is not set here')
})
