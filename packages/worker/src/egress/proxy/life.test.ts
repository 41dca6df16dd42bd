import { fork } from 'node:child_process'
import { createSocket } from 'node:dgram'
import { once } from 'node:events'
import { connect } from 'node:net'
import { text as textOf } from 'node:stream/consumers'
import { setTimeout as wait } from 'node:timers/promises'
import { decode, encode, type RecordType } from 'dns-packet'
import { describe, expect, test } from 'vitest'
import { all, openWorld, pins, rules } from './testing/world.ts'

const world = openWorld()

describe('names', () => {
  const ask = async (name: string, type: RecordType = 'A') => {
    const socket = createSocket('udp4')
    socket.send(
      encode({ type: 'query', id: 7, flags: 256, questions: [{ type, name }] }),
      world.slot.ports['dns-udp'],
      '127.0.0.1',
    )
    const [reply] = await once(socket, 'message')
    socket.close()
    const { answers, flags = 0, id } = decode(reply)
    return { id, code: flags & 15, addresses: answers?.map((answer) => 'data' in answer && answer.data) }
  }

  test('allowed ones have a made-up address, the same each time, and nothing else', async () => {
    const first = await ask('a.wild.test')
    expect(first).toMatchObject({ id: 7, code: 0, addresses: [expect.stringMatching(/^198\.18\./)] })
    expect(await ask('A.Wild.test')).toEqual(first)
    expect(await ask('a.wild.test', 'AAAA')).toMatchObject({ code: 0, addresses: [] })
    expect(await ask('plain.test')).toMatchObject({ addresses: ['127.0.0.12'] })
    expect(world.egress.said).toContainEqual(expect.objectContaining({ type: 'pinned', name: 'a.wild.test' }))
  })

  test.each(['wild.test', 'other.test', 'plain.test.other.test', 'notplain.test', 'localhost'])(
    '%s does not exist',
    async (name) => {
      expect(await ask(name)).toMatchObject({ code: 3, addresses: [] })
      expect(await world.slot.records()).toMatchObject([{ reason: 'name-not-allowed', port: 53, host: name }])
    },
  )

  test('a flood of questions and broken ones leave it answering', async () => {
    const socket = createSocket('udp4')
    for (const bytes of ['', '\0', '\0'.repeat(12), '\0\0\u0001\0\0\u0001\0\0\0\0\0\0\u00c0\u000c\0\u0001\0\u0001']) {
      socket.send(Buffer.from(bytes, 'latin1'), world.slot.ports['dns-udp'], '127.0.0.1')
    }
    expect(await ask('plain.test')).toMatchObject({ code: 0 })
    socket.close()
  })
})

describe('life', () => {
  test('rules that are tightened break what is open, and not the rest', async () => {
    world.upstream.answer('/open', (_seen, response) => void response.write('open'))
    const [doomed, kept] = [await world.openTls('plain.test'), await world.openTls('api.test')]
    for (const [socket, name] of [
      [doomed, 'plain.test'],
      [kept, 'api.test'],
    ] as const) {
      socket.write(`GET /open HTTP/1.1\r\nHost: ${name}\r\n\r\n`)
      await once(socket, 'data')
    }
    const closed = once(doomed, 'close')
    await world.slot.allow({ ...rules, allow: [] })
    await closed
    expect(await world.slot.records()).toMatchObject([{ reason: 'rules-changed', host: 'plain.test' }])
    expect(kept.destroyed).toBe(false)
    kept.destroy()
  })

  test('one sandbox can not take the connections of another', async () => {
    const other = await world.egress.openSlot('other')
    await other.allow(rules, pins)
    const sockets = Array.from({ length: 700 }, () => connect({ host: '127.0.0.12', port: world.slot.ports.http }))
    for (const socket of sockets) socket.on('error', () => undefined)
    await wait(1000)
    expect(sockets.filter((socket) => !socket.destroyed)).toHaveLength(512)
    expect(await world.slot.records()).toMatchObject([
      { decision: 'refused', reason: 'too-many-connections', port: 80 },
    ])
    const socket = connect({ host: '127.0.0.12', port: other.ports.http })
    socket.write('GET / HTTP/1.1\r\nHost: plain.test\r\nConnection: close\r\n\r\n')
    expect(await all(socket)).toMatch(/^HTTP\/1.1 200 /)
    for (const open of sockets) open.destroy()
    await other.records()
    await other.close()
  })

  test('who has done more than could be kept waits', async () => {
    const socket = await world.openPlain('plain.test')
    socket.write('GET / HTTP/1.1\r\nHost: api.test\r\n\r\n'.repeat(3000))
    let text = ''
    socket.on('data', (chunk: Buffer) => (text += chunk))
    await wait(1500)
    const answered = () => text.split('HTTP/1.1 421').length - 1
    expect(answered()).toBe(2000)
    const records = await world.slot.records(3000)
    expect(records).toHaveLength(3000)
    socket.destroy()
  })
})

test('a fault that nothing has caught is told in one line that quotes nothing', async () => {
  const child = fork(new URL('main.ts', import.meta.url), {
    serialization: 'advanced',
    stdio: ['ignore', 'ignore', 'pipe', 'ipc'],
    env: {},
    execArgv: [],
  })
  const said = child.stderr && textOf(child.stderr)
  // Nobody has said yet what the operator has set.
  child.send({ type: 'listen', slot: 'early', what: 'http' })
  const [code] = await once(child, 'exit')
  expect(code).toBe(1)
  expect(await said).toMatch(/^Ends by a fault: Error .*main\.ts:\d+.*\n$/)
  expect(await said).not.toContain('given a socket')
})
