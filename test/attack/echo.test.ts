import { connect } from 'node:http2'
import { setTimeout as sleep } from 'node:timers/promises'
import { beforeAll, describe, expect, test } from 'vitest'
import { drivers } from '../conformance/drivers.ts'
import { compressions, spellings, writePieces } from '../fakes/echo.ts'
import { openEgressWorld, reasonIn } from '../support/egress.ts'
import type { Reply } from '../support/replies.ts'
import { inSandbox } from './support/boxes.ts'

const hosts = ['api.test', 'other.test', 'basic.test', 'git.test', 'bot.test']
const key = 'sk-ant-0123456789/abcdefghij+klmnop="&%'
/** As long, of the same kinds of characters, and nobody's secret: it must come back untouched. */
const decoy = 'xx-decoy-9876543210/ponmlkji+hgfedcb="&%'
const password = 'hunter2-hunter2'
const token = 'ghp_ABCDEFGHIJKLMNOPQRSTUVWXYZ012345'
const botToken = '123456789:AAH-bot-token'

const credentials = {
  'api.test': { headers: { 'x-api-key': key } },
  'basic.test': { headers: { authorization: `Basic ${btoa(`service:${password}`)}` } },
  'git.test': { headers: { authorization: `Bearer ${token}` } },
  'bot.test': { placeholders: { BOT_TOKEN: botToken } },
}

describe.each(Object.entries(drivers))('%s: secrets that come back', { timeout: 30_000 }, (_, driver) => {
  const world = openEgressWorld(driver, { hosts })
  const box = inSandbox(world, { allowOut: ['other.test'], credentials })

  /** Whatever an answer holds, as one text; nothing of a secret may stand anywhere in it. */
  const whole = ({ statusText, headers, body, trailers }: Reply) =>
    JSON.stringify([statusText, headers, body, trailers])
  const ask = async (path: string, host = 'api.test', headers: [string, string][] = []) => {
    const reply = await box().request({ host, path, headers: [['x-decoy', decoy], ...headers] })
    expect(world.upstream.requests.at(-1)?.headers).toMatchObject({ 'x-decoy': decoy })
    return reply
  }

  test('an answer without one passes as it is', async () => {
    world.upstream.answer('/plain', (_seen, response) => {
      response.setHeader('set-cookie', ['a=1', 'b=2']).setHeader('x-a', decoy)
      response.end(decoy)
    })
    for (const host of ['api.test', 'other.test']) {
      const reply = await ask('/plain', host)
      expect(reply).toMatchObject({ status: 200, body: decoy })
      expect(reply.headers).toEqual(
        expect.arrayContaining([
          ['set-cookie', 'a=1'],
          ['set-cookie', 'b=2'],
          ['x-a', decoy],
        ]),
      )
    }
  })

  describe.each(Object.entries(spellings))('%s', (_, spell) => {
    test('in body, headers and everywhere else', async () => {
      world.upstream.answer('/echo', (seen, response) => {
        const written = spell(String(seen.headers['x-api-key']))
        response.statusMessage = `OK ${written}`
        response.setHeader('location', `https://other.test/?key=${written}`)
        response.setHeader('set-cookie', [`key=${written}`, `decoy=${spell(decoy)}`])
        response.setHeader('x-echo', `a ${written} b`)
        response.setHeader('trailer', 'x-trailer')
        response.write(`before ${written} between ${spell(decoy)} after`, 'latin1')
        response.addTrailers({ 'x-trailer': written })
        response.end()
      })
      const reply = await ask('/echo')
      expect(reply.status).toBe(200)
      expect(whole(reply)).not.toContain(JSON.stringify(spell(key)).slice(1, -1))
      // No more of its spelling is left than what holds less than one or two characters of it.
      const inner = JSON.stringify(spell(key).slice(6, -6)).slice(1, -1)
      expect(whole(reply)).not.toContain(inner)
      expect(reply.body).toMatch(/^before .*\*\*\*.* between /)
      expect(reply.body.endsWith(` between ${spell(decoy)} after`)).toBe(true)
      expect(reply.headers).toContainEqual(['set-cookie', `decoy=${spell(decoy)}`])
    })

    test('split at every byte', async () => {
      const written = spell(key)
      const pieces = Array.from({ length: written.length + 1 }, (_, at) => [
        `<${at}:${written.slice(0, at)}`,
        `${written.slice(at)}>`,
      ])
      world.upstream.answer('/split', (_seen, response) => void writePieces(response, pieces.flat()))
      world.upstream.answer('/bytes', (_seen, response) => void writePieces(response, [...`<${written}>`]))
      const split = await ask('/split')
      expect(split.body.match(/<\d+:/g)).toHaveLength(pieces.length)
      for (const { body } of [split, await ask('/bytes')]) expect(body).not.toContain(written.slice(6, -6))
    })
  })

  test('in the name of a header, and in the type', async () => {
    world.upstream.answer('/named', (_seen, response) => {
      response.setHeader(`x-${token}`, '1').setHeader('content-type', `text/plain; key=${token}`)
      response.end()
    })
    const reply = await ask('/named', 'git.test')
    expect(reply.status).toBe(200)
    expect(whole(reply).toLowerCase()).not.toContain(token.toLowerCase())
  })

  test('in what comes before the answer', async () => {
    world.upstream.answer('/hints', (_seen, response) => {
      response.writeEarlyHints({ link: `</${token}>; rel=preload`, 'x-key': token })
      response.end('done')
    })
    const bytes = 'GET /hints HTTP/1.1\r\nHost: git.test\r\nConnection: close\r\n\r\n'
    const { replies } = await box().send('git.test', bytes)
    expect(replies.at(-1)).toMatchObject({ status: 200, body: 'done' })
    expect(JSON.stringify(replies)).not.toContain(token)
  })

  test('slowly, with long pauses in the midst of it', async () => {
    const pieces = [
      'a:',
      key.slice(0, 5),
      key.slice(5, 20),
      key.slice(20),
      ':b:',
      key.slice(0, 30),
      key.slice(30),
      ':c',
    ]
    world.upstream.answer('/slow', (_seen, response) => void writePieces(response, pieces, 400))
    const { body } = await ask('/slow')
    expect(body).toMatch(/^a:.*:b:.*:c$/)
    for (const part of [key, key.slice(5), key.slice(0, 20), key.slice(20)]) expect(body).not.toContain(part)
  })

  test('in errors and redirects as in other answers', async () => {
    for (const status of [301, 400, 401, 404, 500, 503]) {
      world.upstream.answer('/status', (_seen, response) => response.writeHead(status, { 'x-k': key }).end(key))
      const reply = await ask('/status')
      expect(reply.status).toBe(status)
      expect(whole(reply)).not.toContain(key.slice(6, -6))
    }
  })

  describe('compressed', () => {
    test.each(Object.entries(compressions))('%s', async (encoding, compress) => {
      const packed = await compress(Buffer.from(`before ${key} after ${decoy}`, 'latin1'))
      world.upstream.answer('/packed', (_seen, response) => {
        response.setHeader('content-encoding', encoding)
        void writePieces(response, [packed.subarray(0, 9), packed.subarray(9)])
      })
      const reply = await ask('/packed')
      expect(reply).toMatchObject({ status: 200, body: `before *** after ${decoy}` })
      expect(reply.headers.map(([name]) => name)).not.toContain('content-encoding')
    })

    test('in two members of one stream', async () => {
      const [first, second] = await Promise.all(
        [key.slice(0, 20), `${key.slice(20)} after`].map((part) => compressions.gzip?.(Buffer.from(part, 'latin1'))),
      )
      world.upstream.answer('/members', (_seen, response) => {
        response.setHeader('content-encoding', 'gzip')
        response.end(Buffer.concat([first ?? Buffer.alloc(0), second ?? Buffer.alloc(0)]))
      })
      expect((await ask('/members')).body).toBe('*** after')
    })

    test.each(['compress', 'aws-chunked', 'gzip, unheard-of', 'zstd;q=1'])(
      '%s is refused: nobody could look into it',
      async (encoding) => {
        world.upstream.answer('/unknown', (_seen, response) => {
          response.setHeader('content-encoding', encoding)
          response.end(key)
        })
        const reply = await ask('/unknown')
        expect([reply.status, reasonIn(reply)]).toEqual([502, 'encoding-unknown'])
        await box().recorded({ reason: 'encoding-unknown', host: 'api.test', path: '/unknown' })
      },
    )

    test('by the transfer, which is not told apart from the body', async () => {
      const packed = (await compressions.gzip?.(Buffer.from(key, 'latin1'))) ?? Buffer.alloc(0)
      world.upstream.answer('/transfer', (_seen, response) => {
        const size = packed.length.toString(16)
        response.socket?.write('HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n')
        response.socket?.end(Buffer.concat([Buffer.from(`${size}\r\n`), packed, Buffer.from('\r\n0\r\n\r\n')]))
      })
      const { replies } = await box().send('api.test', 'GET /transfer HTTP/1.1\r\nHost: api.test\r\n\r\n', {
        answers: 1,
      })
      expect(replies.map((reply) => [reply.status, reasonIn(reply)])).toEqual([[502, 'encoding-unknown']])
    })

    test('what is cut short or garbled does not pass for whole', async () => {
      const packed = (await compressions.gzip?.(Buffer.from('a'.repeat(100_000)))) ?? Buffer.alloc(0)
      for (const bytes of [packed.subarray(0, 60), Buffer.from('not gzip at all')]) {
        world.upstream.answer('/cut', (_seen, response) => {
          response.setHeader('content-encoding', 'gzip')
          response.end(bytes)
        })
        const { replies } = await box().send('api.test', 'GET /cut HTTP/1.1\r\nHost: api.test\r\n\r\n', { answers: 1 })
        expect(replies.filter(({ status }) => status === 200)).toEqual([])
        await box().recorded({ path: '/cut', reason: 'upstream-unreachable' })
      }
    })

    test('a bomb bursts at the client, not in the proxy', async () => {
      const bomb = (await compressions.gzip?.(Buffer.alloc(256 * 1024 * 1024))) ?? Buffer.alloc(0)
      world.upstream.answer('/bomb', (_seen, response) => {
        response.setHeader('content-encoding', 'gzip')
        response.end(bomb)
      })
      const before = await residentMB(world.outlets.pid)
      const socket = await box().tls('api.test')
      socket.write('GET /bomb HTTP/1.1\r\nHost: api.test\r\n\r\n')
      await new Promise((resolve) => socket.once('readable', resolve))
      await sleep(1000)
      // A client that doesn't read must hold back all of it.
      expect((await residentMB(world.outlets.pid)) - before).toBeLessThan(64)
      expect(await ask('/plain')).toMatchObject({ status: 200 })
      socket.destroy()
    })
  })

  test('Range is not passed on where answers are searched, for slices could be put together', async () => {
    const headers: [string, string][] = [
      ['Range', 'bytes=0-9'],
      ['If-Range', '"x"'],
      ['Accept-Encoding', 'gzip, exotic'],
    ]
    await ask('/plain', 'api.test', headers)
    await ask('/plain', 'other.test', headers)
    const [searched, other] = world.upstream.requests.map((seen) => seen.headers)
    expect(searched).toMatchObject({ 'accept-encoding': 'identity' })
    expect(Object.keys(searched ?? {})).not.toEqual(expect.arrayContaining(['range']))
    expect(Object.keys(searched ?? {})).not.toEqual(expect.arrayContaining(['if-range']))
    expect(other).toMatchObject({ range: 'bytes=0-9', 'if-range': '"x"', 'accept-encoding': 'gzip, exotic' })
  })

  describe('over events', () => {
    const parts = Array.from({ length: Math.ceil(key.length / 3) }, (_, at) => key.slice(at * 3, at * 3 + 3))
    const event = (data: string) => `event: delta\r\ndata: ${data}\r\nid: 7\r\n\r\n`
    const cases: Record<string, { type: string; pieces: string[]; read: (body: string) => string }> = {
      'as data of one event': {
        type: 'text/event-stream',
        pieces: [event(`before ${key} after`)],
        read: (body) => body,
      },
      'as data of many events': {
        type: 'text/event-stream; charset=utf-8',
        pieces: parts.map(event),
        read: (body) => dataOf(body).join(''),
      },
      'as lines of one event': {
        type: 'text/event-stream',
        pieces: [`${parts.map((part) => `data: ${part}\n`).join('')}\n`],
        read: (body) => dataOf(body).join(''),
      },
      'as deltas of a model': {
        type: 'text/event-stream',
        pieces: parts.map((text) => event(JSON.stringify({ type: 'delta', index: 0, delta: { text } }))),
        read: (body) =>
          dataOf(body)
            .map((data) => parsed(data)?.delta?.text ?? '')
            .join(''),
      },
      'as deltas between others': {
        type: 'text/event-stream',
        pieces: parts.flatMap((text) => [
          ': ping\n\n',
          event(JSON.stringify({ delta: { text } })),
          event('{"type":"ping"}'),
        ]),
        read: (body) =>
          dataOf(body)
            .map((data) => parsed(data)?.delta?.text ?? '')
            .join(''),
      },
      'as lines of JSON': {
        type: 'application/x-ndjson',
        pieces: parts.map((text) => `${JSON.stringify({ delta: { text } })}\n`),
        read: (body) =>
          body
            .split('\n')
            .map((line) => parsed(line)?.delta?.text ?? '')
            .join(''),
      },
    }
    test.each(Object.entries(cases))('%s', async (_, { type, pieces, read }) => {
      let sent = ''
      world.upstream.answer('/events', (_seen, response) => {
        response.setHeader('content-type', type)
        sent = pieces.join('')
        void writePieces(
          response,
          [...pieces, pieces[0]?.includes('data') ? event(decoy) : '{"delta":{"text":"end"}}\n'],
          5,
        )
      })
      const { body } = await ask('/events')
      expect(read(sent)).toContain(key)
      expect(read(body)).not.toContain(key)
      expect(read(body)).not.toContain(key.slice(9, -9))
      expect(read(body)).toContain('***')
      // What is no part of it stays, framing and all.
      expect(body).toContain(pieces[0]?.includes('data') ? event(decoy) : '"end"')
    })

    test('an event that holds none is not held back', async () => {
      const times: number[] = []
      world.upstream.answer('/live', async (_seen, response) => {
        response.setHeader('content-type', 'text/event-stream')
        for (let n = 0; n < 3; n++) {
          response.write(`data: ${n} sk-an\n\n`)
          await sleep(300)
        }
        response.end()
      })
      const socket = await box().tls('api.test')
      const began = performance.now()
      socket.on('data', (chunk: Buffer) => {
        if (String(chunk).includes('data: ')) times.push(performance.now() - began)
      })
      socket.write('GET /live HTTP/1.1\r\nHost: api.test\r\n\r\n')
      await expect.poll(() => times.length, { timeout: 5000 }).toBeGreaterThanOrEqual(3)
      socket.destroy()
      expect((times[1] ?? 0) - (times[0] ?? 0)).toBeGreaterThan(150)
    })
  })

  test('over HTTP/2', async () => {
    world.upstream.answer('/h2', (_seen, response) => {
      response.setHeader('x-echo', key)
      void writePieces(response, ['before ', key.slice(0, 9), key.slice(9), ' after'])
    })
    const socket = await box().tls('api.test', { alpn: ['h2'] })
    const session = connect('https://api.test', { createConnection: () => socket })
    const stream = session.request({ ':path': '/h2' })
    let text = ''
    stream.on('response', (headers) => {
      text += JSON.stringify(headers)
    })
    for await (const chunk of stream) text += chunk
    session.destroy()
    expect(text).toContain('before *** after')
    expect(text).not.toContain(JSON.stringify(key).slice(9, -9))
  })

  describe('whose it may be', () => {
    beforeAll(() => {
      world.upstream.answer('/all', (_seen, response) => {
        response.end([key, token, botToken, password, `service:${password}`].join('|'))
      })
    })

    test('every secret of the session is found in the answers of every host that has one', async () => {
      for (const host of ['api.test', 'git.test', 'bot.test', 'basic.test']) {
        const { body } = await ask('/all', host)
        expect([host, body]).toEqual([host, expect.stringMatching(/^[*|]+(service:)?[*]*$/)])
      }
    })

    test('git’s own way of signing in is found too', async () => {
      world.upstream.answer('/r.git/git-upload-pack', (seen, response) => response.end(seen.headers.authorization))
      const { body } = await ask('/r.git/git-upload-pack', 'git.test')
      expect(world.upstream.requests.at(-1)?.headers.authorization).toMatch(/^Basic /)
      expect(body).not.toContain(btoa(`x-access-token:${token}`).slice(22, -4))
    })

    test('the value of a placeholder is found where it was put', async () => {
      world.upstream.answer('/mirror', (seen, response) => response.end(`${seen.body} ${seen.headers['x-t']}`))
      const standIn = String(box().inlay.env.BOT_TOKEN)
      const headers: [string, string][] = [
        ['x-t', standIn],
        ['x-decoy', decoy],
      ]
      const { body } = await box().request({
        host: 'bot.test',
        method: 'POST',
        path: '/mirror',
        headers,
        body: standIn,
      })
      expect(world.upstream.requests.at(-1)).toMatchObject({ body: botToken, headers: { 'x-t': botToken } })
      expect(body).toBe('*** ***')
    })
  })
})

const dataOf = (body: string) => [...body.matchAll(/^data: ?(.*?)\r?$/gm)].map(([, data = '']) => data)

function parsed(text: string): { delta?: { text?: string } } | undefined {
  if (!text.startsWith('{')) return undefined
  return JSON.parse(text) as { delta?: { text?: string } }
}

async function residentMB(pid: number | undefined): Promise<number> {
  const { readFile } = await import('node:fs/promises')
  const [, pages] = (await readFile(`/proc/${pid}/statm`, 'utf8')).split(' ')
  return (Number(pages) * 4096) / 1024 / 1024
}
