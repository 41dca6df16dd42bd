import { execFile, spawnSync } from 'node:child_process'
import { copyFile, mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import fc from 'fast-check'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { guestBinary } from '../testing/build-program.ts'
import { startGuest } from '../testing/start-guest.ts'
import { encodeFrame, type Field, frameType as type } from './frames.ts'

let jail: string
beforeAll(async () => {
  jail = await mkdtemp(join(tmpdir(), 'paws-guest-jail-'))
  await copyFile(await guestBinary(), join(jail, 'guest'))
})
afterAll(() => rm(jail, { recursive: true }))

/** Whatever the host sends, the agent ends by itself, and says why if the host was wrong. Its root is an empty folder. */
async function endsByItself(sent: Uint8Array) {
  const { stream, ended } = await startGuest({ jail })
  // It may hang up while we are still writing.
  stream.on('error', () => undefined)
  stream.resume()
  stream.end(sent)
  const { code, signal, stderr } = await ended
  expect([code, signal]).toEqual([stderr === '' ? 0 : 1, null])
  expect(stderr).toMatch(/^(paws-guest: (protocol: .+|the host is gone)\n)?$/)
}

const hello = encodeFrame(type.hello, 0, [4, 1])

test('whatever bytes its host sends, the agent ends by itself and says why', async () => {
  const bytes = fc.tuple(fc.boolean(), fc.uint8Array({ maxLength: 2000 }))
  await fc.assert(
    fc.asyncProperty(bytes, ([polite, tail]) => endsByItself(polite ? Buffer.concat([hello, tail]) : tail)),
    { numRuns: 60 },
  )
})

const path = fc
  .constantFrom('/a', '/d/b', '/guest', '/guest/x', '/', '/../x', 'x', '/dev/null')
  .map((s) => Buffer.from(s))
const number = <Bytes extends 1 | 2 | 4 | 8>(bytes: Bytes, max: number) =>
  fc.oneof(fc.nat({ max }), fc.constant(2 ** Math.min(8 * bytes, 52) - 1)).map((value): Field => [bytes, value])
const fields: Record<string, fc.Arbitrary<Field[]>> = {
  exec: fc
    .tuple(number(1, 1), number(4, 2), number(4, 2), number(2, 50), number(2, 50))
    .map((head) => [...head, Buffer.from('/\0/guest\0--fd\0')]),
  put: fc.tuple(number(4, 0o777), number(8, 100), path),
  get: fc.tuple(number(8, 1_000_000), path),
  connect: fc.tuple(number(2, 100)),
  data: fc.tuple(number(1, 1), fc.oneof(fc.uint8Array({ maxLength: 99 }), fc.constant(new Uint8Array(70_000)))),
  credit: fc.tuple(number(1, 2), number(4, 100)),
  signal: fc.tuple(number(1, 15)),
  resize: fc.tuple(number(2, 80), number(2, 80)),
  time: fc.tuple(number(8, 100), number(4, 100)),
  shutdown: fc.tuple(number(4, 50)),
}
const frame = fc.oneof(
  ...Object.entries(type).map(([name, number]) =>
    fc
      .tuple(fc.nat({ max: 5 }), fields[name] ?? fc.tuple(fc.uint8Array({ maxLength: 40 })))
      .map(([id, payload]) => encodeFrame(number, id, ...payload)),
  ),
)

test('whatever frames its host sends, the agent ends by itself and says why', async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(frame, { maxLength: 40 }), (frames) => endsByItself(Buffer.concat([hello, ...frames]))),
    { numRuns: 120 },
  )
})

test('five seconds of coverage-guided fuzzing, with the sanitizers watching, find nothing', async () => {
  const library = `libclang_rt.fuzzer-${process.arch === 'arm64' ? 'aarch64' : 'x86_64'}.a`
  const runtime = spawnSync('clang', [`-print-file-name=${library}`], { encoding: 'utf8' })
  if (runtime.error || !runtime.stdout.startsWith('/')) {
    throw new Error("the fuzzer needs Debian's clang and libclang-rt-14-dev, which ./paws test installs")
  }
  const script = join(import.meta.dirname, '../../../../../guest/fuzz/run.sh')
  const { stderr } = await promisify(execFile)(script, ['5'])
  expect(Number(/Done (\d+) runs/.exec(stderr)?.[1])).toBeGreaterThan(500)
}, 60_000)
