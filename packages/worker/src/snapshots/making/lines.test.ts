import { Readable } from 'node:stream'
import { expect, test } from 'vitest'
import { eachLine } from './lines.ts'

async function linesOf(...chunks: (string | Buffer)[]): Promise<string[]> {
  const lines: string[] = []
  await eachLine(Readable.from(chunks.map((chunk) => Buffer.from(chunk))), (line) => void lines.push(line))
  return lines
}

test('lines come whole, however they are cut, and without what no log holds', async () => {
  const euro = Buffer.from('€')
  expect(await linesOf('one\ntw', 'o\n\n', euro.subarray(0, 1), euro.subarray(1), '\nend')).toEqual([
    ...['one', 'two', '', '€', 'end'],
  ])
  expect(await linesOf('a\0b\r\n10 %\r20 %\r\ndone\n')).toEqual(['ab', '20 %', 'done'])
  expect(await linesOf()).toEqual([])
})

test('a line that never ends is cut, and nothing piles up', async () => {
  const lines = await linesOf('x'.repeat(30_000), 'y'.repeat(30_000))
  expect(lines.join('')).toHaveLength(60_000)
  expect(Math.max(...lines.map(({ length }) => length))).toBeLessThanOrEqual(16_384)
})

test('who is slow holds back what is read', async () => {
  let read = 0
  const endless = Readable.from(
    (function* () {
      for (;;) {
        read++
        yield Buffer.from('line\n')
      }
    })(),
    { objectMode: false, highWaterMark: 16 },
  )
  const { promise, resolve } = Promise.withResolvers<void>()
  let heard = 0
  const following = eachLine(endless, () => {
    heard++
    return promise
  })
  await new Promise((later) => setTimeout(later, 50))
  expect([heard, read < 20]).toEqual([1, true])
  endless.destroy()
  resolve()
  // A stream that was broken off is no end of a log.
  await expect(following).rejects.toThrow(/aborted|Premature/)
})
