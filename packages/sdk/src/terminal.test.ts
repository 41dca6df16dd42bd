import { expect, test } from 'vitest'
import { WebSocket } from 'ws'
import { createClient } from './client.ts'
import type { WebSocketLike } from './terminal.ts'
import { json, refusal, serve } from './testing/serve.ts'

const webSocket = (url: string, headers: Record<string, string>) => new WebSocket(url, { headers }) as WebSocketLike

test('a terminal carries bytes both ways, its size, and the exit code', async () => {
  const { url, sockets } = await serve(json(200, {}))
  const got: unknown[] = []
  sockets.on('connection', (socket, request) => {
    got.push(request.url, request.headers.authorization)
    socket.on('message', (data, binary) => {
      got.push(binary ? data.toString() : JSON.parse(data.toString()))
      if (binary) socket.send(Buffer.from([0xff, 0x00]))
      else {
        socket.send(JSON.stringify({ type: 'exit', exitCode: 7 }))
        socket.close()
      }
    })
  })
  const shown: number[] = []
  const terminal = await createClient({ url, apiKey: 'sk' }).sessions.terminal('s', {
    rows: 30,
    cols: 100,
    webSocket,
    onOutput: (bytes) => shown.push(...bytes),
  })
  terminal.write('ls\r')
  await expect.poll(() => shown).toEqual([0xff, 0x00])
  terminal.resize({ rows: 31, cols: 101 })
  expect(await terminal.exit).toEqual({ exitCode: 7 })
  expect(got).toEqual([
    '/v1/sessions/s/terminal?rows=30&cols=100',
    'Bearer sk',
    'ls\r',
    { type: 'resize', rows: 31, cols: 101 },
  ])
})

test('a terminal that is cut off is no exit', async () => {
  const { url, sockets } = await serve(json(200, {}))
  sockets.on('connection', (socket) => socket.close())
  const terminal = await createClient({ url }).sessions.terminal('s', { onOutput: () => undefined })
  await expect(terminal.exit).rejects.toMatchObject({ code: 'UNREACHABLE' })
})

test('a refused terminal says what is wrong with the session', async () => {
  const onOutput = () => undefined
  const gone = await serve(refusal(404, 'SESSION_NOT_FOUND'))
  gone.sockets.options.verifyClient = () => false
  await expect(createClient(gone).sessions.terminal('s', { onOutput, webSocket })).rejects.toMatchObject({
    code: 'SESSION_NOT_FOUND',
  })
  const ended = await serve(json(200, { sessionId: 's', status: 'completed' }))
  ended.sockets.options.verifyClient = () => false
  await expect(createClient(ended).sessions.terminal('s', { onOutput, webSocket })).rejects.toThrow(
    'Session s is completed. A terminal opens only while it is running.',
  )
})
