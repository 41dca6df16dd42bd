import { execFileSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { WebSocket } from 'ws'
import { startTestControlPlane, type TestControlPlane } from '../support/control-plane.ts'
import { pidsWith } from '../support/processes.ts'
import { collect, type StreamEvent, sessionsOf } from '../support/sessions.ts'
import { provideMinimal, startTestWorker, type TestWorker } from '../support/worker.ts'

/** Ends the seconds that programs of this run sleep, so that another run's are not taken for them. */
const own = process.pid

let plane: TestControlPlane
let worker: TestWorker
let sessions: ReturnType<typeof sessionsOf>

beforeAll(async () => {
  plane = await startTestControlPlane({ logLevel: process.env.TEST_LOG })
  worker = await startTestWorker(plane, { logLevel: process.env.TEST_LOG })
  await provideMinimal(plane, worker)
  sessions = sessionsOf(plane)
}, 600_000)
afterAll(async () => {
  await worker?.close()
  await plane?.close()
})

/** A session that waits, for as long as a test has use of it. */
async function waiting() {
  const sessionId = await sessions.start('echo up; sleep 600')
  await sessions.saying(sessionId, 'up')
  return {
    sessionId,
    path: `/v1/sessions/${sessionId}`,
    [Symbol.asyncDispose]: async () => void (await plane.call('DELETE', `/v1/sessions/${sessionId}`)),
  }
}

const exec = (path: string, body: object, options: RequestInit = {}) =>
  sessions.events('POST', `${path}/exec`, { ...options, body: JSON.stringify(body) })

const textOf = (events: StreamEvent[], name: string) =>
  events
    .filter(({ event }) => event === name)
    .map(({ data }) => data.text)
    .join('')

test('a script runs by its #! line or by bash, in /workspace, with its env, and its exit code is the session’s', async () => {
  const python = '#!/usr/bin/env python3\nimport os, sys\nprint(os.getcwd(), os.environ["GREETING"])\nsys.exit(7)\n'
  const sessionId = await sessions.start(python, { env: { GREETING: "it's $HOME `x` \u00e9\n" } })
  expect(await sessions.ended(sessionId)).toMatchObject({
    status: 'failed',
    exitCode: 7,
    stdout: "/workspace it's $HOME `x` \u00e9\n\n",
  })
  const shell = await sessions.start('echo "$PAWS_SESSION_ID $BASH_VERSION" >&2; kill -9 $$')
  const killed = await sessions.ended(shell)
  expect(killed).toMatchObject({ status: 'failed', exitCode: 137 })
  expect(killed.stderr).toMatch(new RegExp(`^${shell} 5\\.`))
})

test('output shows while the session runs', async () => {
  const sessionId = await sessions.start('echo one; sleep 2; echo two')
  await sessions.saying(sessionId, 'one')
  expect(await sessions.get(sessionId)).toMatchObject({ status: 'running', stdout: 'one\n' })
  expect(await sessions.ended(sessionId)).toMatchObject({ status: 'completed', stdout: 'one\ntwo\n' })
})

test('a stream of events that is cut again and again gives each event once, in order', async () => {
  const sessionId = await sessions.start('for i in $(seq 1 60); do echo "line $i é"; sleep 0.02; done')
  const seen: StreamEvent[] = []
  while (seen.at(-1)?.event !== 'done') {
    const headers: Record<string, string> = seen.length > 0 ? { 'last-event-id': String(seen.at(-1)?.id) } : {}
    let few = 3
    for await (const event of sessions.events('GET', `/v1/sessions/${sessionId}/events`, { headers })) {
      seen.push(event)
      if (--few === 0) break
    }
  }
  expect(seen.map(({ id }) => id)).toEqual(seen.map((_, index) => index + 1))
  const lines = Array.from({ length: 60 }, (_, index) => `line ${index + 1} é\n`)
  expect(textOf(seen, 'stdout')).toBe(lines.join(''))
  expect(seen.at(-1)?.data).toMatchObject({ status: 'completed', exitCode: 0 })
})

test('exec gives stdin, streams both outputs and ends with the exit code', async () => {
  await using session = await waiting()
  const command = ['bash', '-c', 'cat; echo "err $X $PWD" >&2; exit 5']
  const events = await collect(exec(session.path, { command, stdin: 'héllo\n', env: { X: 'a b' }, cwd: '/tmp' }))
  expect(textOf(events, 'stdout')).toBe('héllo\n')
  expect(textOf(events, 'stderr')).toBe('err a b /tmp\n')
  expect(events.at(-1)).toMatchObject({ event: 'exit', data: { exitCode: 5 } })
  const missing = await collect(exec(session.path, { command: ['no-such-program'] }))
  expect(missing.at(-1)).toMatchObject({ event: 'exit', data: { exitCode: 127 } })
})

test('exec never cuts a character, however the bytes come', async () => {
  await using session = await waiting()
  const script = "for i in 1 2 3; do printf '\\xe2'; sleep .05; printf '\\x82'; sleep .05; printf '\\xac'; done"
  const events = await collect(exec(session.path, { command: ['bash', '-c', script] }))
  expect(events.map(({ data }) => data.text ?? data.exitCode)).toEqual(['€', '€', '€', 0])
})

test('exec that takes too long is killed and says so; a client that leaves kills its command', async () => {
  await using session = await waiting()
  const slow = await collect(exec(session.path, { command: ['sleep', '300'], timeoutMs: 300 }))
  expect(slow.at(-1)).toMatchObject({ event: 'exit', data: { exitCode: 143, timedOut: true } })
  const leave = new AbortController()
  const running = exec(
    session.path,
    { command: ['bash', '-c', `echo on; exec sleep 31415926${own}`] },
    { signal: leave.signal },
  )
  expect((await running.next()).value).toMatchObject({ data: { text: 'on\n' } })
  expect(pidsWith(`31415926${own}`)).toHaveLength(1)
  leave.abort()
  await expect(running.next()).rejects.toThrow()
  await expect.poll(() => pidsWith(`31415926${own}`)).toEqual([])
})

test('a reader that stops reading stops its command, not the worker’s memory', async () => {
  await using session = await waiting()
  const stop = new AbortController()
  const flood = exec(session.path, { command: ['cat', '/dev/zero'] }, { signal: stop.signal })
  await flood.next()
  const before = process.memoryUsage().rss
  await sleep(1_500)
  expect(process.memoryUsage().rss - before).toBeLessThan(150 * 1024 * 1024)
  const other = await collect(exec(session.path, { command: ['echo', 'fine'] }))
  expect(textOf(other, 'stdout')).toBe('fine\n')
  stop.abort()
  await expect(collect(flood)).rejects.toThrow()
})

test('a session that does not run refuses commands, terminals and files, saying which state would do', async () => {
  const sessionId = await sessions.start('true')
  await sessions.ended(sessionId)
  const command = { body: { command: ['true'] } }
  const asked = [
    plane.call('POST', `/v1/sessions/${sessionId}/exec`, command),
    plane.call('GET', `/v1/sessions/${sessionId}/files?path=x`),
    plane.call('PUT', `/v1/sessions/${sessionId}/files?path=x`, { body: 'x' }),
  ]
  for (const { status, body } of await Promise.all(asked)) {
    expect(status).toBe(409)
    expect(body.error).toMatchObject({
      code: 'INVALID_STATE',
      details: [{ current: 'completed', allowed: ['running'] }],
    })
  }
  const socket = new WebSocket(`${plane.url.replace('http', 'ws')}/v1/sessions/${sessionId}/terminal`, {
    headers: { authorization: `Bearer ${plane.key}` },
  })
  await expect(new Promise((_, reject) => socket.on('error', reject))).rejects.toThrow('409')
})

test('a terminal is one: it has a size, follows a new one, and says how the shell ended', async () => {
  await using session = await waiting()
  const socket = new WebSocket(`${plane.url.replace('http', 'ws')}${session.path}/terminal?rows=30&cols=100`, {
    headers: { authorization: `Bearer ${plane.key}` },
  })
  let shown = ''
  const texts: unknown[] = []
  socket.on('message', (data: Buffer, isBinary) => {
    if (isBinary) shown += String(data)
    else texts.push(JSON.parse(String(data)))
  })
  const closed = new Promise((resolve) => socket.on('close', resolve))
  await new Promise((resolve) => socket.on('open', resolve))
  socket.send(Buffer.from('stty size; tty; echo "$TERM"\r'))
  await expect.poll(() => shown).toContain('30 100')
  await expect.poll(() => shown).toContain('/dev/pts/')
  await expect.poll(() => shown).toContain('xterm-256color')
  socket.send(JSON.stringify({ type: 'resize', rows: 41, cols: 121 }))
  socket.send(Buffer.from('stty size\r'))
  await expect.poll(() => shown).toContain('41 121')
  socket.send(Buffer.from('exit 9\r'))
  expect(await closed).toBe(1000)
  expect(texts).toEqual([{ type: 'exit', exitCode: 9 }])
})

test('closing a terminal hangs up what runs in it', async () => {
  await using session = await waiting()
  const socket = new WebSocket(`${plane.url.replace('http', 'ws')}${session.path}/terminal`, {
    headers: { authorization: `Bearer ${plane.key}` },
  })
  await new Promise((resolve) => socket.on('open', resolve))
  socket.send(Buffer.from(`sleep 27182818${own}\r`))
  await expect.poll(() => pidsWith(`27182818${own}`)).toHaveLength(1)
  socket.terminate()
  await expect.poll(() => pidsWith(`27182818${own}`), { timeout: 8_000 }).toEqual([])
})

test('files go in and come out byte for byte, announced or not', async () => {
  await using session = await waiting()
  const content = Buffer.alloc(3_000_000, 'p\0w\xff', 'latin1')
  const files = `${plane.url}${session.path}/files`
  const headers = { authorization: `Bearer ${plane.key}` }
  const put = await fetch(`${files}?path=deep/in/data.bin&mode=750`, { method: 'PUT', body: content, headers })
  expect(put.status, await put.text()).toBe(204)
  const body = new Blob([content]).stream()
  const chunked = { method: 'PUT', body, headers, duplex: 'half' } as RequestInit
  expect((await fetch(`${files}?path=/tmp/other.bin`, chunked)).status).toBe(204)
  for (const path of ['/workspace/deep/in/data.bin', '/tmp/other.bin']) {
    const got = await fetch(`${files}?path=${path}`, { headers })
    expect(got.headers.get('content-length')).toBe('3000000')
    expect(Buffer.from(await got.arrayBuffer()).equals(content)).toBe(true)
  }
  const stat = await collect(exec(session.path, { command: ['stat', '-c', '%a %U', 'deep/in/data.bin'] }))
  expect(textOf(stat, 'stdout')).toBe('750 root\n')
})

test('links, devices, folders and what is missing are refused, with the reason', async () => {
  await using session = await waiting()
  const make = 'ln -s /etc/passwd link; mkfifo pipe; mkdir -p real; ln -s real folder; echo x > real/file'
  await collect(exec(session.path, { command: ['bash', '-c', make] }))
  const refused = async (path: string) => {
    const { status, body } = await plane.call('GET', `${session.path}/files?path=${path}`)
    return `${status} ${body.error.code} ${body.error.message}`
  }
  expect(await refused('link')).toMatch(/^422 FILE_REFUSED .*link/)
  expect(await refused('folder/file')).toMatch(/^422 FILE_REFUSED .*link/)
  expect(await refused('pipe')).toMatch(/^422 FILE_REFUSED .*regular/)
  expect(await refused('real')).toMatch(/^422 FILE_REFUSED .*regular/)
  expect(await refused('/dev/zero')).toMatch(/^422 FILE_REFUSED .*regular/)
  expect(await refused('nothing')).toMatch(/^404 FILE_NOT_FOUND/)
  const write = await plane.call('PUT', `${session.path}/files?path=folder/new`, { body: 'x' })
  expect(write).toMatchObject({ status: 422, body: { error: { code: 'FILE_REFUSED' } } })
  const large = await fetch(`${plane.url}${session.path}/files?path=large`, {
    method: 'PUT',
    headers: { authorization: `Bearer ${plane.key}` },
    body: Buffer.alloc(256 * 1024 * 1024 + 1),
  })
  expect(large.status).toBe(413)
})

test('cancelling answers once every process is gone, even those that ignore SIGTERM', async () => {
  const script = `trap '' TERM; (trap '' TERM; exec sleep 16180339${own}) & setsid sleep 16180339${own} & echo up; wait; sleep 16180339${own}`
  const sessionId = await sessions.start(script)
  await sessions.saying(sessionId, 'up')
  await expect.poll(() => pidsWith(`16180339${own}`)).toHaveLength(2)
  const { status, body } = await plane.call<{ status: string }>('DELETE', `/v1/sessions/${sessionId}`)
  expect(pidsWith(`16180339${own}`)).toEqual([])
  expect(status).toBe(200)
  expect(body).toEqual({ sessionId, status: 'cancelled' })
  expect(await sessions.get(sessionId)).toMatchObject({ status: 'cancelled', stdout: 'up\n' })
  const again = await plane.call<{ status: string }>('DELETE', `/v1/sessions/${sessionId}`)
  expect(again.body.status).toBe('cancelled')
})

test('a session that runs past its time is stopped, and keeps what it had said', async () => {
  const sessionId = await sessions.start(`echo before; sleep 14142135${own}`, { timeoutMs: 500 })
  const ended = await sessions.ended(sessionId)
  expect(ended).toMatchObject({ status: 'timeout', stdout: 'before\n' })
  expect(ended.durationMs).toBeGreaterThanOrEqual(500)
  expect(pidsWith(`14142135${own}`)).toEqual([])
})

test('the clean-up of a script that gets SIGTERM is part of its output', async () => {
  const sessionId = await sessions.start('trap "echo cleaned; exit 0" TERM; echo up; sleep 100 & wait', {
    timeoutMs: 800,
  })
  expect(await sessions.ended(sessionId)).toMatchObject({ status: 'timeout', stdout: 'up\ncleaned\n' })
})

test.each([
  ['an object', `echo '{"a":[1,"é",null]}' > /output/result.json`, { output: { a: [1, 'é', null] } }],
  ['nothing', 'true', {}],
  ['no JSON', 'echo "{" > /output/result.json', { error: /not JSON/ }],
  ['no UTF-8', `printf '"\\xff"' > /output/result.json`, { error: /not JSON in UTF-8/ }],
  ['a link', 'ln -s /etc/passwd /output/result.json', { error: /link/ }],
  ['a FIFO', 'mkfifo /output/result.json', { error: /regular/ }],
  ['a folder', 'mkdir /output/result.json', { error: /regular/ }],
  [
    'a link of its folder',
    'rm -rf /output; mkdir /tmp/o; echo 1 > /tmp/o/result.json; ln -s /tmp/o /output',
    { error: /link/ },
  ],
  ['1 GB', 'truncate -s 1G /output/result.json', { error: /longer than 1 MiB/ }],
  ['deep', `python3 -c 'print("["*5000+"]"*5000)' > /output/result.json`, { error: /nested deeper/ }],
] as [string, string, { output?: unknown; error?: RegExp }][])(
  'result.json that is %s',
  async (_, script, expected) => {
    const ended = await sessions.ended(await sessions.start(script))
    expect(ended).toMatchObject({ status: 'completed', exitCode: 0 })
    expect(ended.output).toEqual(expected.output)
    if (!expected.error) return expect(ended.error).toBeUndefined()
    expect(ended.error).toMatchObject({ code: 'OUTPUT_REFUSED', message: expect.stringMatching(expected.error) })
  },
)

test('a flood of output is kept to 64 MiB a stream, and the session ends as if nothing were', async () => {
  const sessionId = await sessions.start('head -c 80000000 /dev/zero | tr "\\0" x; echo end >&2')
  await expect.poll(async () => (await sessions.get(sessionId)).status, { timeout: 60_000 }).toBe('completed')
  const { stderr } = await sessions.get(sessionId)
  expect(stderr).toBe('end\n')
  const logs = await fetch(`${plane.url}/v1/sessions/${sessionId}/logs`, {
    headers: { authorization: `Bearer ${plane.key}` },
  })
  const bytes = Buffer.from(await logs.arrayBuffer())
  expect(bytes.length).toBe(64 * 1024 * 1024)
  expect(String(bytes.subarray(-60))).toContain('was dropped')
}, 90_000)

test('a sandbox that dies fails its session, which says so and keeps what it had said', async () => {
  const sessionId = await sessions.start(`echo alive; sleep 17320508${own}; true`)
  await sessions.saying(sessionId, 'alive')
  const command = exec(`/v1/sessions/${sessionId}`, { command: ['bash', '-c', 'echo on; sleep 500'] })
  expect((await command.next()).value).toMatchObject({ data: { text: 'on\n' } })
  const parentOf = (pid: number) => Number(/^PPid:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1])
  const [sleeping] = pidsWith(`17320508${own}`) as [number]
  const guest = parentOf(parentOf(sleeping))
  expect(readFileSync(`/proc/${guest}/status`, 'utf8')).toMatch(/^NSpid:.*\s1$/m)
  process.kill(guest, 'SIGKILL')
  const ended = await sessions.ended(sessionId)
  expect(ended).toMatchObject({ status: 'failed', stdout: 'alive\n', error: { code: 'SANDBOX_LOST' } })
  expect(ended.exitCode).toBeUndefined()
  expect((await collect(command)).at(-1)).toMatchObject({ event: 'error', data: { code: 'SANDBOX_LOST' } })
  expect(pidsWith(`17320508${own}`)).toEqual([])
})

test('a sandbox that can not be started fails its session, without a word about the host', async () => {
  const digest = `sha256:${'0'.repeat(64)}`
  await plane.services.db.insertInto('snapshots').values({ id: 'node', version: 1, digest, sizeBytes: 1 }).execute()
  const ended = await sessions.ended(await sessions.start('true', { snapshot: 'node' }))
  expect(ended).toMatchObject({ status: 'failed', error: { code: 'SANDBOX_START_FAILED' } })
  expect(ended.error?.message).not.toContain('/')
})

test('nothing of a sandbox is left on the host once its session has ended', async () => {
  const mounts = () =>
    readFileSync('/proc/mounts', 'utf8')
      .split('\n')
      .filter((line) => line.includes(worker.dataDir))
  await sessions.ended(await sessions.start('true'))
  const before = mounts().length
  for (let i = 0; i < 3; i++) await sessions.ended(await sessions.start(`(sleep 5772156${own} &) ; true`))
  await expect.poll(() => pidsWith(`5772156${own}`)).toEqual([])
  await expect.poll(() => mounts().length).toBeLessThanOrEqual(before)
  expect(execFileSync('ls', [`${worker.dataDir}/journal`]).toString()).toBe('')
})
