import { once } from 'node:events'
import { connect, type Socket } from 'node:net'
import { Readable } from 'node:stream'
import { text } from 'node:stream/consumers'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest'
import { startTestControlPlane, type TestControlPlane } from '../../../../test/support/control-plane.ts'
import { sendRaw, serveHandlers } from '../../../../test/support/http.ts'
import type { StreamEvent } from './handler.ts'
import type { Handlers } from './index.ts'

let plane: TestControlPlane
beforeAll(async () => {
  plane = await startTestControlPlane()
})
afterAll(() => plane.close())

let server: Awaited<ReturnType<typeof serveHandlers>>
afterEach(() => server.close())
async function serve(handlers: Partial<Handlers>) {
  server = await serveHandlers(plane.services, handlers)
}

const get = (path: string, init: RequestInit = {}) =>
  fetch(`${server.url}${path}`, { ...init, headers: { authorization: `Bearer ${plane.key}` } })
const eventsPath = '/v1/sessions/x/events'

test('events have an id, a name and one line of data', async () => {
  await serve({
    streamSessionEvents: async () => ({
      status: 200,
      events: (async function* () {
        yield { id: 1, event: 'stdout', data: { text: 'two\nlines' } }
        yield { event: 'done', data: {} }
      })(),
    }),
  })
  const response = await get(eventsPath)
  expect(response.headers.get('content-type')).toBe('text/event-stream; charset=utf-8')
  expect(await response.text()).toBe('id: 1\nevent: stdout\ndata: {"text":"two\\nlines"}\n\nevent: done\ndata: {}\n\n')
})

test('a client that leaves ends the stream behind it', async () => {
  let ended = false
  await serve({
    streamSessionEvents: async ({ signal }) => ({
      status: 200,
      events: (async function* (): AsyncGenerator<StreamEvent> {
        try {
          for (let id = 1; !signal.aborted; id++) {
            yield { id, event: 'stdout', data: {} }
            await sleep(5)
          }
        } finally {
          ended = true
        }
      })(),
    }),
  })
  const leaving = new AbortController()
  const response = await get(eventsPath, { signal: leaving.signal })
  await response.body?.getReader().read()
  leaving.abort()
  await expect.poll(() => ended).toBe(true)
})

test('a slow reader holds the events back', async () => {
  let made = 0
  await serve({
    streamSessionEvents: async () => ({
      status: 200,
      events: (async function* () {
        for (; made < 100_000; made++) yield { id: made, event: 'stdout', data: { text: 'x'.repeat(10_000) } }
      })(),
    }),
  })
  const socket = connect({ port: server.port, host: '127.0.0.1' })
  socket.pause()
  socket.write(`GET ${eventsPath} HTTP/1.1\r\nHost: x\r\nX-API-Key: ${plane.key}\r\n\r\n`)
  await sleep(500)
  expect(made).toBeLessThan(2000)
  socket.destroy()
})

test('a stream that breaks off is cut, not ended as if it were whole', async () => {
  await serve({
    streamSessionEvents: async () => ({
      status: 200,
      events: (async function* () {
        yield { id: 1, event: 'stdout', data: {} }
        await sleep(50)
        throw new Error('broke')
      })(),
    }),
  })
  const response = await get(eventsPath)
  await expect(response.text()).rejects.toThrow()
})

test('an error of ours tells nothing but the request id', async () => {
  await serve({
    getSession: async () => {
      throw new Error('password=hunter2 at /srv/paws')
    },
  })
  const response = await get('/v1/sessions/x')
  const body = await response.text()
  expect(response.status).toBe(500)
  expect(body).toContain(response.headers.get('x-request-id'))
  expect(body).not.toMatch(/hunter2|srv/)
})

test('bytes stream in and out, unread by the loop', async () => {
  await serve({
    writeSessionFile: async ({ body }) => {
      expect(await text(body)).toBe('in'.repeat(100_000))
      return { status: 204, empty: true }
    },
    readSessionFile: async () => ({
      status: 200,
      bytes: Readable.from(['out', 'put']),
      contentType: 'application/octet-stream',
      length: 6,
    }),
  })
  const path = '/v1/sessions/x/files?path=/a'
  expect((await get(path, { method: 'PUT', body: 'in'.repeat(100_000) })).status).toBe(204)
  const read = await get(path)
  expect(read.headers.get('content-length')).toBe('6')
  expect(read.headers.get('x-content-type-options')).toBe('nosniff')
  expect(await read.text()).toBe('output')
})

test('a body of bytes beyond its limit is refused by its length alone', async () => {
  await serve({ writeSessionFile: async () => ({ status: 204, empty: true }) })
  const head = `PUT /v1/sessions/x/files?path=/a HTTP/1.1\r\nHost: x\r\nX-API-Key: ${plane.key}\r\nConnection: close\r\n`
  const answer = sendRaw(server.port, `${head}Content-Length: ${300 * 1024 * 1024}\r\n\r\n`)
  expect(await answer).toMatch(/^HTTP\/1.1 413 .*PAYLOAD_TOO_LARGE/s)
})

const upgrade = (credential: string) =>
  `GET /v1/sessions/x/terminal HTTP/1.1\r\nHost: x\r\n${credential}Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n`

test('an upgrade goes through the same loop: refusals are plain HTTP', async () => {
  await serve({ openTerminal: async () => Promise.reject(new Error('must not be reached')) })
  expect(await sendRaw(server.port, upgrade(''))).toMatch(/^HTTP\/1.1 401 .*X-Request-Id: req_.*UNAUTHORIZED/s)
  const without = await get('/v1/sessions/x/terminal')
  expect(without.status).toBe(400)
  expect(await without.json()).toMatchObject({ error: { details: [{ path: 'Upgrade' }] } })
  const other = `GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n`
  expect(await sendRaw(server.port, other)).toMatch(/^HTTP\/1.1 200 /)
})

test('an upgraded connection is the handler’s, and its end aborts the signal', async () => {
  let aborted = false
  await serve({
    openTerminal: async ({ signal }) => ({
      status: 101,
      upgrade: (_request, socket) => {
        signal.addEventListener('abort', () => {
          aborted = true
        })
        socket.write('HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n')
        socket.pipe(socket)
      },
    }),
  })
  const socket = connect({ port: server.port, host: '127.0.0.1' })
  socket.write(upgrade(`X-API-Key: ${plane.key}\r\n`))
  expect(await readOnce(socket)).toMatch(/^HTTP\/1.1 101 /)
  socket.write('echo')
  expect(await readOnce(socket)).toBe('echo')
  socket.destroy()
  await expect.poll(() => aborted).toBe(true)
})

test('a server that closes finishes what is in flight, ends streams, and cuts upgraded connections', async () => {
  await serve({
    getSession: async () => {
      await sleep(300)
      return { status: 200, json: {} }
    },
    streamSessionEvents: async ({ signal }) => ({
      status: 200,
      events: (async function* () {
        yield { id: 1, event: 'status', data: {} }
        await new Promise((resolve) => signal.addEventListener('abort', resolve))
      })(),
    }),
    openTerminal: async () => ({ status: 101, upgrade: (_request, socket) => socket.write('upgraded') }),
  })
  const inFlight = get('/v1/sessions/x')
  const stream = await get(eventsPath)
  const socket = connect({ port: server.port, host: '127.0.0.1' })
  socket.write(upgrade(`X-API-Key: ${plane.key}\r\n`))
  expect(await readOnce(socket)).toBe('upgraded')
  await sleep(50)
  const closing = server.close()
  expect((await inFlight).status).toBe(200)
  expect(await stream.text()).toBe('id: 1\nevent: status\ndata: {}\n\n')
  await once(socket, 'close')
  await closing
  await expect(get('/healthz')).rejects.toThrow()
})

async function readOnce(socket: Socket): Promise<string> {
  const [chunk] = (await once(socket, 'data')) as [Buffer]
  return chunk.toString()
}
