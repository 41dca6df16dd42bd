import { cutMarker } from '@paws/api'
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { openGatherer, type Piece, pieceBytes, wholeCharacters } from './output.ts'

const bytesOf = (pieces: Piece[], stream: string) =>
  Buffer.concat(pieces.filter((piece) => piece.stream === stream).map(({ bytes }) => bytes))

/** Cuts bytes at the given places, wherever they fall. */
function cutAt(bytes: Buffer, places: number[]): Buffer[] {
  const ends = [...places.map((place) => place % (bytes.length + 1)), bytes.length].sort((a, b) => a - b)
  return ends.map((end, index) => bytes.subarray(ends[index - 1] ?? 0, end))
}

test('text is never cut inside a character, wherever it was cut on its way here', () => {
  fc.assert(
    fc.property(fc.string({ unit: 'binary', maxLength: 60 }), fc.array(fc.nat(), { maxLength: 12 }), (text, places) => {
      const bytes = Buffer.from(text)
      const gatherer = openGatherer()
      const pieces: Piece[] = []
      for (const part of cutAt(bytes, places)) {
        gatherer.add('stdout', part)
        pieces.push(...gatherer.take())
      }
      expect(gatherer.bytes).toBe(0)
      expect(bytesOf(pieces, 'stdout').equals(bytes)).toBe(true)
      for (const piece of pieces) expect(Buffer.from(piece.bytes.toString()).equals(piece.bytes)).toBe(true)
    }),
  )
})

test('bytes of any kind come out as they went in, all of them at the end', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 80 }), fc.array(fc.nat(), { maxLength: 12 }), (array, places) => {
      const bytes = Buffer.from(array)
      const gatherer = openGatherer()
      const pieces: Piece[] = []
      for (const part of cutAt(bytes, places)) {
        gatherer.add('stderr', part)
        pieces.push(...gatherer.take())
        expect(gatherer.bytes).toBeLessThan(4)
      }
      pieces.push(...gatherer.take(true))
      expect(bytesOf(pieces, 'stderr').equals(bytes)).toBe(true)
    }),
  )
})

test('large output is cut into pieces of bounded size, between characters', () => {
  const text = `a${'€'.repeat(400_000)}`
  const gatherer = openGatherer()
  gatherer.add('stdout', Buffer.from(text))
  const pieces = gatherer.take()
  expect(pieces.length).toBe(5)
  for (const { bytes } of pieces) expect(bytes.length).toBeLessThanOrEqual(pieceBytes)
  expect(pieces.map(({ bytes }) => String(bytes)).join('')).toBe(text)
})

test('what is beyond the limit of a stream is dropped, says so once, and leaves the other stream alone', () => {
  const gatherer = openGatherer(1_000)
  for (let i = 0; i < 50; i++) gatherer.add('stdout', Buffer.from('€'.repeat(17)))
  gatherer.add('stderr', Buffer.from('fine'))
  const pieces = gatherer.take(true)
  const kept = bytesOf(pieces, 'stdout')
  expect(kept.length).toBeLessThanOrEqual(1_000)
  expect(kept.length).toBeGreaterThan(990)
  expect(String(kept)).toMatch(/^€+\n\[paws: what came after .* was dropped\]\n$/)
  expect(String(bytesOf(pieces, 'stderr'))).toBe('fine')
})

test('a stream that ends exactly at its limit is whole', () => {
  const room = 1_000 - cutMarker.length
  const gatherer = openGatherer(1_000)
  gatherer.add('stdout', Buffer.alloc(room, 'x'))
  gatherer.add('stdout', Buffer.alloc(0))
  expect(bytesOf(gatherer.take(true), 'stdout').length).toBe(room)
})

test.each([
  [[0x61], 1],
  [[0xe2, 0x82], 0],
  [[0x61, 0xf0, 0x9f, 0x98], 1],
  [[0xe2, 0x82, 0xac], 3],
  [[0x80, 0x80, 0x80, 0x80], 4],
  [[0xff], 1],
  [[0xc0], 1],
])('%j has %i bytes that are whole', (bytes, whole) => {
  expect(wholeCharacters(Buffer.from(bytes))).toBe(whole)
})

test('records stay the pieces that they are, beside the limit of output', () => {
  const gatherer = openGatherer(200)
  const record = Buffer.from('[{"path":"/é"}]'.repeat(20))
  gatherer.add('egress', record)
  gatherer.add('stdout', Buffer.from('a'))
  gatherer.add('egress', record)
  expect(gatherer.bytes).toBe(2 * record.length + 1)
  expect(gatherer.take()).toEqual([
    { stream: 'egress', bytes: record },
    { stream: 'egress', bytes: record },
    { stream: 'stdout', bytes: Buffer.from('a') },
  ])
  expect(gatherer.bytes).toBe(0)
})

test('of records, the first piece beyond their limit is the last', () => {
  const gatherer = openGatherer(200, 20)
  for (const text of ['[1,2,3,4,5]', '[6,7,8,9,0]', '[1]', '[2]']) gatherer.add('egress', Buffer.from(text))
  expect(gatherer.take().map(({ bytes }) => String(bytes))).toEqual(['[1,2,3,4,5]', '[6,7,8,9,0]'])
  gatherer.add('egress', Buffer.from('[3]'))
  expect(gatherer.take()).toEqual([])
  expect(gatherer.bytes).toBe(0)
})
