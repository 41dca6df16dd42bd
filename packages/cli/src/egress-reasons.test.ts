import type { EgressRecord } from '@paws/sdk'
import { expect, test } from 'vitest'
import { remediesFor, summaryOf } from './egress-reasons.ts'

const refused = (host: string | undefined, reason?: EgressRecord['reason']): EgressRecord => ({
  at: '2026-01-01T00:00:00.000Z',
  decision: reason ? 'refused' : 'allowed',
  port: 443,
  reason,
  host,
})

test('what got nowhere is named once each, and what a terminal would obey is not', () => {
  const records = ['a.test', 'a.test', 'b\u001b[2J.test'].map((host) => refused(host, 'name-not-allowed'))
  expect(summaryOf(records)).toBe('a.test (name-not-allowed), b\\x1b[2J.test (name-not-allowed)')
  const more = ['a', 'b', 'c', 'd', 'e'].map((host) => refused(host, 'not-tls'))
  expect(summaryOf(more)).toBe('a (not-tls), b (not-tls), c (not-tls) and 2 more')
  expect(summaryOf([refused(undefined, 'sni-missing')])).toBe('port 443 (sni-missing)')
})

test('what went out and came back is no trouble', () => {
  expect(summaryOf([refused('a.test')])).toBeUndefined()
  expect(remediesFor([refused('a.test')])).toEqual([])
})

test('each reason that one can do something about has its remedy, once', () => {
  const records = [refused('a', 'name-not-allowed'), refused('b', 'name-not-allowed'), refused('c', 'not-tls')]
  expect(remediesFor(records)).toEqual([expect.stringContaining('"--allow HOST"')])
})
