import { setTimeout as sleep } from 'node:timers/promises'
import { beforeAll, describe, expect, test } from 'vitest'
import { drivers } from '../conformance/drivers.ts'
import { openEgressWorld, reasonIn } from '../support/egress.ts'
import { inSandbox } from './support/boxes.ts'

const hosts = ['api.test', 'hostile.test']
const key = 'sk-hosts-0123456789abcdef'
const answer = (body: string, ...headers: string[]) =>
  ['HTTP/1.1 200 OK', `Content-Length: ${body.length}`, ...headers, '', body].join('\r\n')

/** What a host may answer that isn't one answer. */
const malformed: Record<string, string> = {
  'no HTTP': 'SSH-2.0-OpenSSH_9.9\r\n',
  nothing: '',
  'half a head': 'HTTP/1.1 200 OK\r\nContent-Le',
  'a status that is none': 'HTTP/1.1 2000 OK\r\nContent-Length: 0\r\n\r\n',
  'two lengths': answer('ok', 'Content-Length: 100'),
  'a length and chunks': answer('0\r\n\r\n', 'Transfer-Encoding: chunked'),
  'a negative length': 'HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\nok',
  'a line break in a header': answer('ok', 'X-A: b\nX-C: d\r'),
  'a NUL in a header': answer('ok', 'X-A: b\0c'),
  'a space in the name of a header': answer('ok', 'X A: b'),
  'headers without an end': `HTTP/1.1 200 OK\r\n${'X-A: b\r\n'.repeat(20_000)}`,
  'a header without an end': `HTTP/1.1 200 OK\r\nX-A: ${'a'.repeat(200_000)}`,
  'another protocol': 'HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\nmore',
}

describe.each(Object.entries(drivers))('%s: hostile hosts', { timeout: 30_000 }, (_, driver) => {
  const world = openEgressWorld(driver, { hosts })
  const credentials = { 'api.test': { headers: { 'x-api-key': key } } }
  const box = inSandbox(world, { allowOut: ['hostile.test'], credentials })

  let bytes = ''
  beforeAll(() => {
    // Past the server, which therefore answers no other request on this connection.
    world.upstream.answer('/raw', (_seen, _response, { socket }) => {
      socket.write(bytes, 'latin1')
      // A host that says half and falls silent would be waited for.
      if (!bytes.includes('\r\n\r\n')) socket.end()
    })
  })
  const ask = (host: string) => box().request({ host, path: '/raw' })

  test.each(hosts)('an answer by hand is handed on (%s)', async (host) => {
    bytes = answer('by hand', 'X-A: b', 'Connection: close')
    const reply = await ask(host)
    expect(reply).toMatchObject({ status: 200, body: 'by hand' })
    expect(reply.headers).toContainEqual(['x-a', 'b'])
  })

  describe.each(hosts)('%s', (host) => {
    test.each(Object.entries(malformed))('%s is no answer', async (_, raw) => {
      bytes = raw
      const reply = await ask(host)
      expect([reply.status, reasonIn(reply)]).toEqual([502, 'upstream-unreachable'])
      await box().recorded({ host, path: '/raw', reason: 'upstream-unreachable', status: 502 })
      expect(await box().request({ host })).toMatchObject({ status: 200 })
    })

    test('what follows an answer is not the next one', async () => {
      bytes = `${answer('ok')}${answer('poison', 'X-Poison: 1')}`
      const replies = []
      for (let n = 0; n < 6; n++) {
        replies.push(await ask(host).catch(() => undefined))
        replies.push(await box().request({ host }))
        await sleep(20)
      }
      expect(JSON.stringify(replies)).not.toContain('oison')
      expect(replies.filter((reply) => reply?.status === 200).length).toBeGreaterThanOrEqual(6)
    })

    test('what comes before an answer is bounded, or passes by', async () => {
      bytes = `${'HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n'.repeat(1000)}${answer('after all')}`
      const reply = await ask(host)
      expect([200, 502]).toContain(reply.status)
    })

    test('an answer that is cut short does not look whole', async () => {
      const cuts = [
        'HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort',
        'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nshort\r\n',
      ]
      for (const cut of cuts) {
        world.upstream.answer('/cut', (_seen, _response, { socket }) => socket.end(cut))
        const { replies, closed } = await box().send(host, `GET /cut HTTP/1.1\r\nHost: ${host}\r\n\r\n`, { answers: 1 })
        expect([replies, closed]).toEqual([[], true])
        await box().recorded({ host, path: '/cut', reason: 'upstream-unreachable' })
      }
    })
  })

  test('a request that may have had its effect is not sent again when the host breaks off', async () => {
    for (const [method, body] of [
      ['POST', ''],
      ['POST', 'pay'],
      ['PUT', 'pay'],
      ['DELETE', ''],
      ['PATCH', 'pay'],
    ] as const) {
      world.upstream.answer('/broken', (_seen, _response, { socket }) => socket.destroy())
      // On a connection that was kept, which might have been closed meanwhile.
      expect(await box().request({ host: 'api.test' })).toMatchObject({ status: 200 })
      world.upstream.forget()
      const reply = await box().request({ host: 'api.test', method, path: '/broken', body })
      expect([reply.status, reasonIn(reply)]).toEqual([502, 'upstream-unreachable'])
      expect(world.upstream.requests.map((seen) => [seen.method, seen.target])).toEqual([[method, '/broken']])
    }
  })

  test('headers of the connection to it are not handed on', async () => {
    bytes = answer(
      'ok',
      'Connection: close, X-Hop',
      'X-Hop: 1',
      'Keep-Alive: timeout=1',
      'Alt-Svc: h3=":443"',
      'Proxy-Connection: close',
    )
    for (const host of hosts) {
      const names = (await ask(host)).headers.map(([name]) => name)
      for (const name of ['x-hop', 'alt-svc', 'proxy-connection']) expect(names).not.toContain(name)
    }
  })
})
