import { expect, test } from 'vitest'
import { createClient } from './client.ts'
import { broken, json, refusal, serve, stream } from './testing/serve.ts'

const event = (id: number, name: string, data: unknown) =>
  `id: ${id}\nevent: ${name}\ndata: ${JSON.stringify(data)}\n\n`
const done = (id: number) => event(id, 'done', { status: 'completed' })

test('events come once and in order over broken connections, an outage, and a repeating server', async () => {
  const { url, seen } = await serve(
    stream(`${event(1, 'status', { status: 'running' })}${event(2, 'stdout', { text: 'a' })}id: 3\nevent: stdout\nda`, {
      cut: true,
    }),
    broken,
    refusal(503, 'NOT_READY'),
    stream(event(2, 'stdout', { text: 'a' }) + event(3, 'stdout', { text: 'ü' }) + ': ping\n\n'),
    stream(event(4, 'stderr', { text: 'b\n' }) + done(5) + event(6, 'stdout', { text: 'never' })),
  )
  const got: unknown[] = []
  for await (const { id, event, data } of createClient({ url }).sessions.events('s')) got.push([id, event, data])
  expect(got).toEqual([
    [1, 'status', { status: 'running' }],
    [2, 'stdout', { text: 'a' }],
    [3, 'stdout', { text: 'ü' }],
    [4, 'stderr', { text: 'b\n' }],
    [5, 'done', { status: 'completed' }],
  ])
  expect(seen.map((one) => one.headers['last-event-id'])).toEqual([undefined, '2', '2', '2', '3'])
})

test('a character that is cut between two pieces of the answer stays whole', async () => {
  const bytes = Buffer.from(event(1, 'stdout', { text: '€' }) + done(2))
  const { url } = await serve((response) => {
    response.writeHead(200, { 'content-type': 'text/event-stream' })
    const at = bytes.indexOf('€') + 1
    response.write(bytes.subarray(0, at))
    setTimeout(() => response.end(bytes.subarray(at)), 30)
  })
  const got = await createClient({ url }).sessions.events('s').next()
  expect(got.value).toMatchObject({ data: { text: '€' } })
})

test('a stream that is refused, at first or on resuming, is given up at once', async () => {
  const { url, seen } = await serve(stream(event(1, 'stdout', { text: 'a' })), refusal(404, 'SESSION_NOT_FOUND'))
  const events = createClient({ url }).sessions.events('s')
  await events.next()
  await expect(events.next()).rejects.toMatchObject({ code: 'SESSION_NOT_FOUND' })
  expect(seen).toHaveLength(2)
})

test('a lost control plane is waited for only so long', async () => {
  const { url } = await serve(stream(event(1, 'stdout', { text: 'a' })), broken)
  const events = createClient({ url }).sessions.events('s', { reconnectMs: 300 })
  await events.next()
  await expect(events.next()).rejects.toMatchObject({ code: 'UNREACHABLE' })
})

test('waiting ends with the session as it then is', async () => {
  const { url, seen } = await serve(
    json(202, { sessionId: 's', status: 'pending' }),
    stream(event(1, 'stdout', { text: 'hi\n' }) + done(2)),
    json(200, { sessionId: 's', status: 'completed', exitCode: 0, stdout: 'hi\n' }),
  )
  const output: string[] = []
  const session = await createClient({ url }).sessions.run(
    { snapshot: 'minimal', workload: { type: 'script', script: 'echo hi' } },
    { onEvent: (event) => event.event === 'stdout' && output.push(event.data.text) },
  )
  expect(session).toMatchObject({ status: 'completed', stdout: 'hi\n' })
  expect(output).toEqual(['hi\n'])
  expect(seen.map((one) => one.path)).toEqual(['/v1/sessions', '/v1/sessions/s/events', '/v1/sessions/s'])
})

test('leaving the loop closes the connection; aborting says why', async () => {
  let closed = 0
  const { url } = await serve((response) => {
    response.on('close', () => closed++)
    response.writeHead(200, { 'content-type': 'text/event-stream' }).write(event(1, 'stdout', { text: 'a' }))
  })
  const paws = createClient({ url })
  for await (const _ of paws.sessions.events('s')) break
  await expect.poll(() => closed).toBe(1)
  const leave = new AbortController()
  const following = paws.sessions.events('s', { signal: leave.signal })
  await following.next()
  setTimeout(() => leave.abort(new Error('Enough.')), 20)
  await expect(following.next()).rejects.toThrow('Enough.')
  await expect.poll(() => closed).toBe(2)
})

test('a command streams to its exit; a break before that is an error, not a second run', async () => {
  const whole = await serve(stream('event: stdout\ndata: {"text":"x"}\n\nevent: exit\ndata: {"exitCode":3}\n\n'))
  const got = []
  for await (const { event, data } of createClient(whole).sessions.exec('s', { command: ['x'] }))
    got.push([event, data])
  expect(got).toEqual([
    ['stdout', { text: 'x' }],
    ['exit', { exitCode: 3 }],
  ])
  const cut = await serve(stream('event: stdout\ndata: {"text":"x"}\n\n'))
  const commands = createClient(cut).sessions.exec('s', { command: ['x'] })
  await commands.next()
  await expect(commands.next()).rejects.toThrow(/broke before the command had ended/)
  expect(cut.seen).toHaveLength(1)
})

test('a build is waited for, telling its progress', async () => {
  const { url } = await serve(
    stream(event(1, 'progress', { status: 'building', progress: 0.5 }) + event(2, 'done', { status: 'ready' })),
    json(200, { snapshotId: 'minimal', status: 'ready', jobId: 'build-1' }),
  )
  const progress: number[] = []
  const build = await createClient({ url }).snapshots.waitForBuild('minimal', 'build-1', {
    onEvent: (event) => event.event === 'progress' && progress.push(event.data.progress),
  })
  expect(build.status).toBe('ready')
  expect(progress).toEqual([0.5])
})
