import { Readable } from 'node:stream'
import { buffer } from 'node:stream/consumers'
import { pipeline } from 'node:stream/promises'
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { ForbiddenFound, guard } from './guard.ts'

const forbidden = [Buffer.from('forbidden'), Buffer.from([0, 255, 1])]

async function pass(chunks: Buffer[], limitBytes = 1_000): Promise<Buffer> {
  const through = guard({ limitBytes, tooLong: 'too long', forbidden })
  const [, out] = await Promise.all([pipeline(Readable.from(chunks), through), buffer(through)])
  return out
}

/** Every byte a chunk, or cut at one place. */
const cut = (bytes: Buffer, at: number) => [bytes.subarray(0, at), bytes.subarray(at)]

test('forbidden bytes are found wherever they are cut', async () => {
  for (const what of forbidden) {
    const bytes = Buffer.concat([Buffer.from('forbidde'), what, Buffer.from('n')])
    for (let at = 0; at <= bytes.length; at++) {
      await expect(pass(cut(bytes, at))).rejects.toThrow(ForbiddenFound)
    }
    await expect(pass([...bytes].map((byte) => Buffer.from([byte])))).rejects.toThrow(ForbiddenFound)
  }
})

test('everything else passes as it came, up to the limit', async () => {
  const pieces = fc.array(fc.uint8Array({ maxLength: 40 }), { maxLength: 20 })
  await fc.assert(
    fc.asyncProperty(pieces, async (arrays) => {
      const chunks = arrays.map((array) => Buffer.from(array))
      const all = Buffer.concat(chunks)
      fc.pre(!forbidden.some((what) => all.includes(what)))
      expect(await pass(chunks)).toEqual(all)
    }),
  )
  const half = Buffer.alloc(500)
  expect(await pass([half, half])).toHaveLength(1_000)
  await expect(pass([half, half, Buffer.alloc(1)])).rejects.toThrow('too long')
})
