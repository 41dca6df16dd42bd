import { decode, encode, type RecordType } from 'dns-packet'
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { answer, type Resolution } from './resolver.ts'

const resolve = (name: string): Resolution => (name === 'a.test' ? { address: '198.18.0.1' } : 'no-such-name')
const question = (name: string, type: RecordType = 'A') => ({ type, name, class: 'IN' as const })

async function ask(name: string, type: RecordType = 'A', additionals: object[] = []) {
  const query = { type: 'query' as const, id: 4711, flags: 256, questions: [question(name, type)], additionals }
  const reply = await answer(encode(query as Parameters<typeof encode>[0]), resolve)
  if (!reply) return undefined
  const { id, flags = 0, answers = [], questions } = decode(reply)
  return { id, code: flags & 15, questions, answers: answers.map((one) => ('data' in one ? one.data : undefined)) }
}

test('a name that is allowed has one address, of one kind', async () => {
  expect(await ask('a.test')).toMatchObject({ id: 4711, code: 0, answers: ['198.18.0.1'] })
  for (const type of ['AAAA', 'TXT', 'MX', 'HTTPS', 'ANY'] as RecordType[]) {
    expect(await ask('a.test', type)).toMatchObject({ code: 0, answers: [] })
  }
})

test('any other does not exist', async () => {
  for (const type of ['A', 'AAAA', 'TXT'] as RecordType[]) {
    expect(await ask('b.test', type)).toMatchObject({ code: 3, answers: [] })
  }
})

test('options of newer clients change nothing', async () => {
  const options = [{ type: 'OPT', name: '.', udpPayloadSize: 4096, flags: 0, options: [] }]
  expect(await ask('a.test', 'A', options)).toMatchObject({ code: 0, answers: ['198.18.0.1'] })
})

test('answers, updates, several questions and pointers in circles get no answer', async () => {
  const query = encode({ type: 'query', id: 1, questions: [question('a.test')] })
  const changed = (at: number, byte: number) => {
    const copy = Buffer.from(query)
    copy[at] = byte
    return copy
  }
  const circle = Buffer.concat([query.subarray(0, 12), Buffer.from([0xc0, 12, 0, 1, 0, 1])])
  for (const message of [
    changed(2, 0x80),
    changed(2, 0x28),
    changed(5, 2),
    changed(5, 0),
    circle,
    query.subarray(0, 15),
  ]) {
    expect(await answer(message, resolve)).toBeUndefined()
  }
})

test('whatever comes, nothing is thrown', async () => {
  const anything = fc.oneof(
    fc.uint8Array({ maxLength: 100 }),
    fc.uint8Array({ maxLength: 60 }).map((rest) => Uint8Array.from([0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, ...rest])),
  )
  await fc.assert(
    fc.asyncProperty(anything, async (bytes) => {
      await answer(Buffer.from(bytes), resolve)
    }),
    { numRuns: 3000 },
  )
})
