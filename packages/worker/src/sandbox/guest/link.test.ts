import { type Duplex, duplexPair } from 'node:stream'
import { setImmediate as turn } from 'node:timers/promises'
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { SandboxLost } from '../driver.ts'
import { connectGuest } from './agent.ts'
import { encodeFrame, type Field, frameType as type, windowBytes } from './frames.ts'

/** An agent of our own making, and one request of each kind that waits for its answers: ids 1 to 5, in this order. */
function hostileGuest() {
  const [hostEnd, guestEnd] = duplexPair()
  guestEnd.resume()
  guestEnd.on('error', () => undefined)
  const guest = connectGuest(hostEnd)
  const program = guest.exec({ argv: ['x'], env: {}, cwd: '/', stdin: true })
  const pending = {
    exec: program.exit,
    get: guest.get('/x', { maxBytes: 1000 }),
    connect: guest.connect(1),
    put: guest.put('/x', Buffer.alloc(3), { size: 3 }),
    ping: guest.ping(),
  }
  const settled = Promise.allSettled(Object.values(pending))
  return { guest, guestEnd, hostEnd, program, pending, settled }
}

const hello = encodeFrame(type.hello, 0, [4, 1])
const data = (id: number, stream: number, size: number) => encodeFrame(type.data, id, [1, stream], Buffer.alloc(size))
const size = (bytes: number): Field => [8, bytes]
const full = Array(windowBytes / 65_536).fill(data(1, 1, 65_536))

const breaches: [string, Buffer[], string][] = [
  ['no hello', [encodeFrame(type.done, 5)], 'no hello came first'],
  ['another version', [encodeFrame(type.hello, 0, [4, 2])], 'it speaks version 2, not 1'],
  ['two hellos', [hello, hello], 'an answer of type 1 to a request that is not open'],
  ['no length', [hello, Buffer.alloc(4)], 'a frame of 0 bytes'],
  ['a huge length', [hello, Buffer.from('ffffffff', 'hex')], 'a frame of 4294967295 bytes'],
  ['an unknown type', [hello, encodeFrame(99, 5)], 'an answer of type 99, 0 bytes long, to ping'],
  ['a request of its own', [hello, encodeFrame(type.exec, 5)], 'an answer of type 2, 0 bytes long, to ping'],
  ['an answer to nobody', [hello, encodeFrame(type.done, 77)], 'to a request that is not open'],
  ['two last answers', [hello, encodeFrame(type.done, 5), encodeFrame(type.done, 5)], 'to a request that is not open'],
  ['more than the credit', [hello, ...full, data(1, 1, 1)], 'more data than it had credit for'],
  ['empty data', [hello, data(1, 1, 0)], 'an answer of type 6, 1 bytes long, to exec'],
  ['a third output', [hello, data(1, 3, 1)], 'output on stream 3 of exec'],
  ['data after an end', [hello, encodeFrame(type.end, 1, [1, 1]), data(1, 1, 1)], 'data after the end of its stream'],
  [
    'data after the exit',
    [
      hello,
      encodeFrame(type.end, 1, [1, 1]),
      encodeFrame(type.end, 1, [1, 2]),
      encodeFrame(type.exit, 1, [1, 0], [1, 0]),
      data(1, 1, 1),
    ],
    'to a request that is not open',
  ],
  ['an exit too early', [hello, encodeFrame(type.exit, 1, [1, 0], [1, 0])], 'an exit before the end of the output'],
  ['no such signal', [hello, encodeFrame(type.exit, 1, [1, 1], [1, 200])], 'a death by signal 200'],
  ['credit out of nothing', [hello, encodeFrame(type.credit, 1, [1, 0], [4, 1])], 'credit for what was never sent'],
  ['a file that is too large', [hello, encodeFrame(type.opened, 2, size(1001))], 'a file of 1001 bytes where 1000 may'],
  [
    'a file that goes on',
    [hello, encodeFrame(type.opened, 2, size(5)), data(2, 1, 6)],
    'more of a file than was announced',
  ],
  [
    'a file that stops',
    [hello, encodeFrame(type.opened, 2, size(5)), data(2, 1, 4), encodeFrame(type.end, 2, [1, 1])],
    'less of a file than was announced',
  ],
  [
    'a file without an end',
    [hello, encodeFrame(type.opened, 2, size(0)), encodeFrame(type.done, 2)],
    'get was done before the end of the file',
  ],
  ['a file that is not open', [hello, data(2, 1, 1)], 'more of a file than was announced'],
  ['a port that is not open', [hello, data(3, 1, 1)], 'data of a connection that is not open'],
  ['a port opened twice', [hello, encodeFrame(type.opened, 3), encodeFrame(type.opened, 3)], 'opened twice or badly'],
  [
    'an overlong reason',
    [hello, encodeFrame(type.error, 5, [1, 1], Buffer.alloc(200))],
    'an answer of type 35, 201 bytes',
  ],
]

test.each(breaches)('an agent that sends %s is cut off, and the reason says so', async (_, frames, reason) => {
  const { guest, guestEnd, hostEnd, settled } = hostileGuest()
  for (const frame of frames) guestEnd.write(frame)
  const gone = await guest.gone
  expect(gone.reason).toContain('its agent broke the protocol: ')
  expect(gone.reason).toContain(reason)
  const lost = (await settled).filter((outcome) => outcome.status === 'rejected')
  // At most one request had its whole and honest answer before.
  expect(lost.length).toBeGreaterThanOrEqual(4)
  for (const { reason: error } of lost) expect(error).toBeInstanceOf(SandboxLost)
  expect(hostEnd.destroyed).toBe(true)
})

test('an answer in many pieces is one answer, and control characters do not get through', async () => {
  const { guestEnd, pending } = hostileGuest()
  const text = Buffer.from('a\x1b[31mb\n\xff', 'latin1')
  for (const byte of Buffer.concat([hello, encodeFrame(type.error, 2, [1, 3], text)])) guestEnd.write(Buffer.of(byte))
  await expect(pending.get).rejects.toMatchObject({ reason: 'link', message: 'The sandbox refused /x: a?[31mb??' })
  guestEnd.end()
})

test('output in single bytes that nobody reads is kept in one piece', async () => {
  const { guestEnd, program, guest } = hostileGuest()
  guestEnd.write(hello)
  const one = data(1, 1, 1)
  for (let i = 0; i < 64; i++) guestEnd.write(Buffer.concat(Array(windowBytes / 64).fill(one)))
  await turn()
  expect(program.stdout.readableLength).toBeLessThanOrEqual(windowBytes)
  const chunks: Buffer[] = []
  program.stdout.on('data', (chunk) => chunks.push(chunk))
  await expect.poll(() => chunks.reduce((sum, chunk) => sum + chunk.length, 0)).toBe(windowBytes)
  expect(chunks.length).toBeLessThan(10)
  guestEnd.end()
  await guest.gone
})

test('an agent that reads nothing is cut off before it costs much memory', async () => {
  const [hostEnd] = duplexPair({ highWaterMark: 1 })
  const guest = connectGuest(hostEnd)
  for (let i = 0; i < 20; i++) guest.exec({ argv: ['x'.repeat(7_000_000)], env: {}, cwd: '/' })
  expect(await guest.gone).toEqual({ reason: 'its agent does not read what it is sent' })
})

/** What must hold however the agent ends: everybody is told why, at once, and nothing is thrown elsewhere. */
async function endsWell(guestEnd: Duplex, guest: ReturnType<typeof connectGuest>, settled: Promise<unknown>) {
  guestEnd.end()
  const { reason } = await guest.gone
  await settled
  expect(reason).toMatch(/^its agent (broke the protocol: .+|ended the connection)$/)
  await expect(guest.ping()).rejects.toThrow(SandboxLost)
}

test('whatever bytes an agent sends, it ends with a reason', async () => {
  await fc.assert(
    fc.asyncProperty(fc.boolean(), fc.array(fc.uint8Array({ maxLength: 300 })), async (polite, chunks) => {
      const { guest, guestEnd, settled } = hostileGuest()
      if (polite) guestEnd.write(hello)
      for (const chunk of chunks) guestEnd.write(chunk)
      await endsWell(guestEnd, guest, settled)
    }),
    { numRuns: 300 },
  )
})

const u8 = fc.nat({ max: 3 }).map((n): Field => [1, n])
const u32 = fc.oneof(fc.nat({ max: 70_000 }), fc.constantFrom(0xffffffff, windowBytes)).map((n): Field => [4, n])
const bytes = fc.oneof(
  fc.uint8Array({ maxLength: 20 }),
  fc.nat({ max: 65_540 }).map((n) => new Uint8Array(n)),
)
const hostile = fc
  .tuple(
    fc.oneof({ weight: 20, arbitrary: fc.constantFrom(...Object.values(type)) }, fc.nat({ max: 255 })),
    fc.nat({ max: 6 }),
    fc.oneof(
      fc.tuple(u8, bytes),
      fc.tuple(u8, u32),
      fc.tuple(u8, u8),
      fc.tuple(u8),
      fc.tuple(),
      fc.nat({ max: 1200 }).map((n): [Field] => [size(n)]),
    ),
  )
  .map(([kind, id, fields]) => encodeFrame(kind, id, ...(fields as Field[])))

test('whatever frames an agent sends, it ends with a reason, and holds no more than its windows', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(hostile, { maxLength: 60 }),
      fc.integer({ min: 1, max: 100_000 }),
      async (frames, cut) => {
        const { guest, guestEnd, program, settled } = hostileGuest()
        const sent = Buffer.concat([hello, ...frames])
        for (let at = 0; at < sent.length; at += cut) guestEnd.write(sent.subarray(at, at + cut))
        await turn()
        expect(program.stdout.readableLength + program.stderr.readableLength).toBeLessThanOrEqual(4 * windowBytes)
        await endsWell(guestEnd, guest, settled)
      },
    ),
    { numRuns: 500 },
  )
})
