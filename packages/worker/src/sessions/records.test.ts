import type { EgressRecord } from '@paws/api'
import { expect, test } from 'vitest'
import { keepRecords, piecesOf } from './records.ts'

const record = (path: string): EgressRecord => ({
  at: '2026-11-22T10:00:00.000Z',
  decision: 'allowed',
  port: 443,
  path,
})

test('records are cut into whole arrays of about 64 KiB, in order', () => {
  const records = Array.from({ length: 200 }, (_, n) => record(`/${n}/${'x'.repeat(1990)}`))
  const pieces = [...piecesOf(records)]
  expect(pieces.flatMap((piece) => JSON.parse(piece))).toEqual(records)
  expect(pieces.length).toBeGreaterThan(5)
  expect(Math.max(...pieces.map(({ length }) => length))).toBeLessThan(66_000)
  expect([...piecesOf([])]).toEqual([])
})

test('more come only when those before are kept, and a report that will never be is no failure', async () => {
  const kept: string[] = []
  let keep: (() => void) | undefined
  const report = {
    write: (stream: string, bytes: Buffer) =>
      new Promise<void>((resolve) => {
        kept.push(`${stream} ${bytes}`)
        keep = resolve
      }),
  }
  let done = false
  const taken = keepRecords(Promise.resolve(report))([record('/')]).then(() => {
    done = true
  })
  await expect.poll(() => kept).toEqual([`egress [${JSON.stringify(record('/'))}]`])
  expect(done).toBe(false)
  keep?.()
  await taken
  const never = Promise.reject(new Error('no journal'))
  await expect(keepRecords(never)([record('/')])).resolves.toBeUndefined()
})
