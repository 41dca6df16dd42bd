import fc from 'fast-check'
import { expect, test } from 'vitest'
import { compileSecrets, type Message, openMessageScrub, openScrub } from './index.ts'

const secret = 'sk-ant-"q"/0123456789'
const secrets = compileSecrets([`Bearer ${secret}`])

/** The events as a stream gives them, in pieces of this many bytes. */
function scrub(text: string, size = text.length, type = 'text/event-stream; charset=utf-8'): string {
  const { push, end } = openScrub(secrets, type)
  const bytes = Buffer.from(text)
  const pieces: Buffer[] = []
  for (let at = 0; at < bytes.length; at += size) pieces.push(push(bytes.subarray(at, at + size)))
  return Buffer.concat([...pieces, end()]).toString()
}

/** What a client puts together of the deltas. */
const said = (answer: string) =>
  [...answer.matchAll(/^data: (.*)\r?$/gm)].map(([, json]) => JSON.parse(json ?? '').delta?.text ?? '').join('')

const delta = (text: string, more = {}) =>
  `event: d\ndata: ${JSON.stringify({ type: 'd', ...more, delta: { text } })}\n\n`

test('a secret split over the deltas of two events, at every place and in all pieces', () => {
  for (let place = 1; place < secret.length; place++) {
    const text = `${delta('It is ')}${delta(`x${secret.slice(0, place)}`)}${delta(`${secret.slice(place)}y`)}${delta('.')}`
    for (const size of [1, 7, 64, text.length]) {
      const answer = scrub(text, size)
      expect(said(answer)).toBe('It is x***y.')
      expect(answer.match(/\n\n/g)).toHaveLength(4)
    }
  }
})

test('a secret of which every event has one letter, among others that say nothing', () => {
  const text = [...secret].map((letter) => delta(letter) + 'event: ping\ndata: {"type": "ping"}\n\n: note\n\n').join('')
  expect(said(scrub(text))).toBe('***')
  expect(scrub(text).match(/ping\ndata/g)).toHaveLength(secret.length)
})

test('a secret split over answers that alternate, and over events that are counted', () => {
  const [one, two] = [secret.slice(0, 9), secret.slice(9)]
  const alternating = delta(one, { index: 0 }) + delta('other', { index: 1 }) + delta(two, { index: 0 })
  expect(said(scrub(alternating))).toBe('***other')
  expect(said(scrub(delta(one, { index: 1 }) + delta(two, { index: 2 })))).toBe('***')
  const choices = (text: string) =>
    `data: {"choices":[{"delta":{"content":"-"}},{"delta":{"content":${JSON.stringify(text)}}}]}\n\n`
  expect(scrub(choices(one) + choices(two))).toBe(choices('***') + choices(''))
})

test('a secret in a tool input: JSON, escaped, in pieces of JSON', () => {
  const input = JSON.stringify({ command: `curl -H 'x-api-key: ${secret}'` })
  for (let place = 1; place < input.length; place++) {
    const answer = said(scrub(delta(input.slice(0, place)) + delta(input.slice(place))))
    expect(answer).toBe(`{"command":"curl -H 'x-api-key: ***'"}`)
  }
})

test.each(['\n', '\r\n', '\r'])('raw payloads, over events and over lines of one, lines ending in %j', (newline) => {
  for (let place = 1; place < secret.length; place++) {
    const [one, two] = [secret.slice(0, place), secret.slice(place)]
    const lines = (data: string[]) => ['id: 7', ': comment', ...data.map((so) => `data:${so}`), '', ''].join(newline)
    const events = lines([`a ${one}`]) + lines([`${two} b`])
    for (const size of [1, 5, events.length]) {
      expect(scrub(events, size)).toBe(lines(['a ***']) + lines([' b']))
      expect(scrub(lines([one, two]), size)).toBe(lines(['***', '']))
    }
  }
})

test('JSON a line is compared as events are', () => {
  const line = (text: string) => `{"message":{"content":${JSON.stringify(text)}}}\n`
  const text = line(`a ${secret.slice(0, 5)}`) + line(`${secret.slice(5)} b`)
  expect(scrub(text, 3, 'application/x-ndjson')).toBe(line('a ***') + line(' b'))
})

test('whatever holds no secret stays as it is, in any framing', () => {
  const line = fc.oneof(
    fc.string({ maxLength: 20 }),
    fc.json().map((json) => `data: ${json}`),
    fc.constantFrom(
      'data:sk-an',
      'data',
      'event: sk-ant',
      'id:',
      ':',
      'data: {"a":"sk-ant-"}',
      'data: {"a":"\\"q\\"x"}',
    ),
  )
  const text = fc.array(fc.tuple(line, fc.constantFrom('\n', '\r', '\r\n', '\n\n')), { maxLength: 20 })
  fc.assert(
    fc.property(text, fc.integer({ min: 1, max: 50 }), (lines, size) => {
      const whole = lines.map((line) => line.join('')).join('')
      expect(scrub(whole, size)).toBe(whole)
    }),
    { numRuns: 1000 },
  )
})

test('an event goes on at once unless it ends with what may be the beginning of a secret', async () => {
  const released: string[] = []
  const { push, end } = openScrub(secrets, 'text/event-stream', (bytes) => released.push(String(bytes)))
  expect(String(push(Buffer.from(delta('hello'))))).toBe(delta('hello'))
  expect(String(push(Buffer.from(delta('yes'))))).toBe('event: d\n')
  expect(String(push(Buffer.from(delta(' indeed'))))).toBe(delta('yes').slice(9) + delta(' indeed'))
  // Who waits for the end of the answer before asking again must get it.
  expect(String(push(Buffer.from(delta('sk-'))))).toBe('event: d\n')
  await expect.poll(() => released.join('')).toBe(delta('sk-').slice(9))
  const rest = String(push(Buffer.from(delta(secret.slice(3, 12)))))
  await expect.poll(() => released.join('')).toBe(delta('sk-').slice(9) + delta('***').slice(rest.length))
  expect(said(String(push(Buffer.from(delta(`${secret.slice(12)}!`)))))).toBe('!')
  expect(String(end())).toBe('')
})

test('a line without an end is not held without end', () => {
  const { push, end } = openScrub(secrets, 'text/event-stream')
  let given = 0
  for (let at = 0; at < 40; at++) given += push(Buffer.alloc(100_000, 'data: x')).length
  expect(given).toBeGreaterThan(2_500_000)
  expect(String(push(Buffer.from(`${secret}\n`))).endsWith('***\n')).toBe(true)
  expect(String(push(Buffer.from(delta(secret))))).toBe(delta('***'))
  expect(end()).toHaveLength(0)
})

test('messages: each for itself and against each other, text and binary, in their order', async () => {
  const sent: Message[] = []
  const scrubber = openMessageScrub(secrets, (message) => sent.push(message))
  const push = (text: string, binary = false) => scrubber.push({ bytes: Buffer.from(text), binary })
  const texts = () => sent.splice(0).map(({ bytes, binary }) => `${binary ? 'binary' : 'text'} ${bytes}`)
  push(`{"token":${JSON.stringify(secret)}}`)
  expect(texts()).toEqual(['text {"token":"***"}'])
  push(`> ${secret.slice(0, 4)}`, true)
  expect(texts()).toEqual([])
  push('{"type":"ping"}')
  push(`${secret.slice(4)}$`, true)
  expect(texts()).toEqual(['binary > ***', 'text {"type":"ping"}', 'binary $'])
  push('{"delta":"sk-"}')
  await expect.poll(() => texts()).toEqual(['text {"delta":"sk-"}'])
  push('s')
  scrubber.end()
  expect(texts()).toEqual(['text s'])
})

test.each([
  ['things that are counted', JSON.stringify(Array.from({ length: 9_000 }, (_, index) => ({ index, text: 'yes' })))],
  ['long keys', JSON.stringify({ ['k'.repeat(100_000)]: Array.from({ length: 9_000 }, () => 'yes') })],
  ['long paths', `${`{"${'k'.repeat(190)}":`.repeat(60)}${JSON.stringify(Array(1_900).fill('yes'))}${'}'.repeat(60)}`],
  ['a long name of a field', `${'k'.repeat(500_000)}:${JSON.stringify(Array(1_900).fill('yes'))}`],
])('a line with %s takes no more memory than its size explains', (what, line) => {
  const type = what.includes('field') ? 'text/event-stream' : 'application/x-ndjson'
  const before = process.memoryUsage().rss
  const began = performance.now()
  expect(scrub(`${line}\n`, 65_536, type)).toBe(`${line}\n`)
  expect(process.memoryUsage().rss - before).toBeLessThan(150_000_000)
  expect(performance.now() - began).toBeLessThan(2_000)
})

test('a secret that repeats itself holds nobody up in a stream of its letters', () => {
  const { push, end } = openScrub(compileSecrets([`${'a'.repeat(7_999)}b`]), 'text/event-stream')
  const began = performance.now()
  let answer = ''
  for (let at = 0; at < 20_000; at++) answer += push(Buffer.from(delta('a')))
  answer += end()
  expect(performance.now() - began).toBeLessThan(5_000)
  // None is told after the search was given up, and the frames stay.
  expect(said(answer)).toMatch(/^\*+$/)
  expect(answer.match(/\n\n/g)).toHaveLength(20_000)
})

test('strings that begin like a secret, each under another name, hold nobody up', () => {
  const { push, end } = openScrub(secrets, 'application/x-ndjson')
  const began = performance.now()
  let given = 0
  for (let at = 0; at < 50_000; at++) given += push(Buffer.from(`{"${at}":"sk-"}\n`)).length
  given += end().length
  expect(performance.now() - began).toBeLessThan(5_000)
  expect(given).toBeGreaterThan(500_000)
})

test.each(['text/event-stream,text/event-stream', 'text/plain, TEXT/event-stream;charset=utf-8'])(
  'a type that was said twice counts when either is a stream of events: %s',
  (type) => {
    const text = delta(secret.slice(0, 9)) + delta(secret.slice(9))
    expect(said(scrub(text, text.length, type))).toBe('***')
    const lines = `{"a":"${plainSecret.slice(0, 9)}"}\n{"a":"${plainSecret.slice(9)}"}\n`
    expect(scrubPlain(lines, type.replaceAll(/text\/event-stream/gi, 'application/x-ndjson'))).toBe(
      '{"a":"***"}\n{"a":""}\n',
    )
  },
)

const plainSecret = 'tok-AbC123xyz789'
function scrubPlain(text: string, type: string): string {
  const { push, end } = openScrub(compileSecrets([plainSecret]), type)
  return Buffer.concat([push(Buffer.from(text)), end()]).toString()
}
