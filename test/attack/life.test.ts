import { once } from 'node:events'
import { readFile } from 'node:fs/promises'
import type { IncomingMessage } from 'node:http'
import type { Duplex } from 'node:stream'
import { setTimeout as sleep } from 'node:timers/promises'
import { describe, expect, test } from 'vitest'
import { WebSocket } from 'ws'
import { drivers } from '../conformance/drivers.ts'
import { run } from '../conformance/suite.ts'
import { openEgressWorld, reasonIn } from '../support/egress.ts'

const hosts = ['allowed.test', 'second.test', 'evil.test']
const key = 'sk-life-0123456789abcdefgh'
/** However the other side ends it: by an error as well. */
const closed = (socket: Duplex) =>
  new Promise<void>((resolve) => {
    socket.resume()
    for (const event of ['end', 'close', 'error']) socket.once(event, () => resolve())
  })
const get = (path: string, host = 'allowed.test') => `GET ${path} HTTP/1.1\r\nHost: ${host}\r\n\r\n`

describe.each(Object.entries(drivers))('%s: the life of a way out', { timeout: 60_000 }, (_, driver) => {
  const world = openEgressWorld(driver, { hosts, ready: 3 })

  test('before the rules stand nothing passes, on any port, and afterwards what they allow', async () => {
    const box = await world.startBare()
    expect((await box.ask('allowed.test')).answers).toEqual([])
    const address = '198.18.0.1'
    await expect(box.tls('allowed.test', { address })).rejects.toThrow()
    const early = await box.send('allowed.test', get('/early'), { port: 80, address, answers: 1 })
    expect(early.replies.filter(({ status }) => status < 400)).toEqual([])
    // A connection that was there before them isn't let through by them with what it has sent.
    const waiting = await box.dial(address, 80)
    waiting.write(get('/waiting').slice(0, -2))
    await sleep(100)
    expect(world.upstream.requests).toEqual([])
    await box.allow({ allowOut: ['allowed.test'] })
    expect(await box.request({ host: 'allowed.test' })).toMatchObject({ status: 200 })
    waiting.destroy()
    // What came before there was a session is no session's to record.
    expect(box.records.filter(({ host, port }) => host === address && port === 443)).toEqual([])
    expect(world.upstream.requests.map(({ target }) => target)).toEqual(['/'])
  })

  test('rules that are tightened break what they no longer allow, in the midst of it', async () => {
    const credentials = { 'allowed.test': { headers: { 'x-api-key': key } } }
    const box = await world.start({ allowOut: ['second.test'], credentials })
    world.upstream.answer('/endless', async (_seen, response) => {
      while (!response.destroyed) {
        response.write('more ')
        await sleep(20)
      }
    })
    const stream = async (host: string) => {
      const socket = await box.tls(host)
      socket.write(get('/endless', host))
      let bytes = 0
      socket.on('data', (chunk: Buffer) => {
        bytes += chunk.length
      })
      await expect.poll(() => bytes).toBeGreaterThan(200)
      return { socket, bytes: () => bytes }
    }
    const idle = await box.tls('allowed.test')
    idle.write(get('/'))
    await once(idle, 'data')
    const webSocketUnder = await box.tls('allowed.test')
    const webSocket = new WebSocket('wss://allowed.test/ws', { createConnection: () => webSocketUnder })
    webSocket.on('error', () => webSocket.terminate())
    await once(webSocket, 'open')
    const [broken, kept] = await Promise.all([stream('allowed.test'), stream('second.test')])
    const ends = Promise.all([broken.socket, idle, webSocketUnder].map(closed))
    const address = await box.address('allowed.test')

    await box.allow({ allowOut: ['second.test'] })
    await ends
    const soFar = kept.bytes()
    await expect.poll(kept.bytes).toBeGreaterThan(soFar + 100)
    kept.socket.destroy()
    await box.recorded({ reason: 'rules-changed', host: 'allowed.test', path: '/endless' })
    await box.recorded({ reason: 'rules-changed', host: 'allowed.test', path: '/ws' })
    world.upstream.forget()
    // The address it had is still that of the name, which is allowed no more.
    await expect(box.tls('allowed.test', { address })).rejects.toThrow()
    await box.recorded({ decision: 'refused', reason: 'name-not-allowed', port: 443, host: 'allowed.test' })
    const plain = await box.send('allowed.test', get('/'), { port: 80, address, answers: 1 })
    expect(plain.replies.map(reasonIn)).toEqual(['name-not-allowed'])
    await box.recorded({ decision: 'refused', reason: 'name-not-allowed', port: 80, host: 'allowed.test' })
    expect((await box.ask('allowed.test')).answers).toEqual([])
    expect(world.upstream.requests).toEqual([])
  })

  test('a connection that stays open is judged by the rules of each request', async () => {
    const credentials = { 'allowed.test': { headers: { 'x-api-key': key } } }
    const box = await world.start({ credentials })
    const socket = await box.tls('allowed.test')
    let text = ''
    socket.on('data', (chunk: Buffer) => {
      text += chunk
    })
    socket.write(get('/first'))
    await expect.poll(() => text).toContain('hello')
    await box.allow({ allowOut: ['allowed.test'] })
    if (!socket.destroyed) socket.write(get('/second'))
    await expect.poll(() => socket.destroyed || text.match(/hello/g)?.length === 2).toBe(true)
    const keys = world.upstream.requests.map(({ target, headers }) => [target, headers['x-api-key']])
    expect(keys[0]).toEqual(['/first', key])
    for (const later of keys.slice(1)) expect(later).toEqual(['/second', undefined])
    socket.destroy()
  })

  test('the next session gets nothing of the one before it', async () => {
    const credentials = { 'allowed.test': { headers: { 'x-api-key': key } } }
    const first = await world.start({ credentials })
    const others = new Set(world.upstream.open)
    await first.request({ host: 'allowed.test' })
    const address = await first.address('allowed.test')
    const open = await first.tls('allowed.test')
    const ended = closed(open)
    await first.sandbox.stop({ graceMs: 0 })
    await ended
    await expect.poll(() => [...world.upstream.open].filter((socket) => !others.has(socket)).length).toBe(0)
    world.upstream.forget()

    const next = await world.start({ allowOut: ['second.test'] })
    expect((await next.ask('allowed.test')).answers).toEqual([])
    await expect(next.tls('allowed.test', { address })).rejects.toThrow()
    await next.recorded({
      decision: 'refused',
      port: 443,
      reason: expect.stringMatching(/mismatch|not-pinned/) as never,
    })
    expect(next.inlay.certificate).not.toBe(first.inlay.certificate)
    expect(world.upstream.requests).toEqual([])
    expect(await next.request({ host: 'second.test' })).toMatchObject({ status: 200 })
    expect(JSON.stringify(next.records)).not.toContain('/first')
    expect(world.upstream.requests[0]?.headers).not.toHaveProperty('x-api-key')
  })

  test('connections to hosts are not shared between sessions', async () => {
    const boxes = await Promise.all([
      world.start({ allowOut: ['allowed.test'] }),
      world.start({ allowOut: ['allowed.test'] }),
    ])
    const before = world.upstream.connections
    for (const box of boxes) {
      await box.request({ host: 'allowed.test' })
      await box.request({ host: 'allowed.test' })
    }
    expect(world.upstream.connections - before).toBeGreaterThanOrEqual(2)
  })

  test('when the proxy is killed, nothing gets out until another one stands, and then the same as before', async () => {
    const credentials = { 'allowed.test': { headers: { 'x-api-key': key }, placeholders: { KEY: key } } }
    const box = await world.start({ credentials })
    const address = await box.address('allowed.test')
    world.upstream.answer('/slow', () => undefined)
    const open = await box.tls('allowed.test')
    open.write(get('/slow'))
    await expect.poll(() => world.upstream.requests).toHaveLength(1)
    const ended = closed(open)
    const { pid } = world.outlets
    if (!pid) throw new Error('There is no egress process')
    world.upstream.forget()
    process.kill(pid, 'SIGKILL')
    await ended
    // Whatever is tried meanwhile either is refused or waits for the next one; none of it passes by.
    const tries = await Promise.allSettled(
      Array.from({ length: 10 }, async (_, n) => {
        await sleep(n * 5)
        await expect(box.dial(address, 8443)).rejects.toThrow('errno 111')
        return box.send('allowed.test', get(`/meanwhile${n}`, 'evil.test'), { address, answers: 1 })
      }),
    )
    expect(world.upstream.requests).toEqual([])
    for (const attempt of tries) {
      if (attempt.status === 'fulfilled') expect(attempt.value.replies.map(({ status }) => status)).toEqual([421])
    }
    await expect
      .poll(() => box.request({ host: 'allowed.test' }).catch(() => undefined), { timeout: 20_000 })
      .toBeDefined()
    expect(world.outlets.pid).not.toBe(pid)
    expect(await box.request({ host: 'allowed.test', path: `/${box.inlay.env.KEY}` })).toMatchObject({ status: 200 })
    expect(world.upstream.requests.at(-1)).toMatchObject({ target: `/${key}`, headers: { 'x-api-key': key } })
    // The name kept its address, the authority is the same, and what isn't allowed still isn't.
    expect((await box.ask('allowed.test')).answers).toMatchObject([{ data: address }])
    expect((await box.ask('evil.test')).answers).toEqual([])
    await expect(box.tls('evil.test', { address })).rejects.toThrow()
    await box.recorded({ decision: 'refused', reason: 'sni-address-mismatch', host: 'evil.test' })
  })

  test('ten thousand connections of one sandbox leave another one working', async () => {
    const [greedy, other] = await Promise.all([
      world.start({ allowOut: ['allowed.test'] }),
      world.start({ allowOut: ['allowed.test'] }),
    ])
    const address = await greedy.address('allowed.test')
    const { pid } = world.outlets
    const source = `import json, resource, socket, time
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
opened, held = 0, []
while opened < 10000:
  s = socket.socket(); s.setblocking(False)
  try: s.connect(("${address}", (443, 80)[opened % 2]))
  except BlockingIOError: pass
  except OSError: pass
  held.append(s); opened += 1
  if len(held) > min(hard - 50, 5000): held.pop(0).close()
time.sleep(2)
# Those that were taken: what still waits to be turned away belongs to no process yet.
taken = 0
for line in open("/proc/net/tcp6"):
  field = line.split()
  taken += field[1][-5:] in (":01BB", ":0050") and field[3] == "01" and field[9] != "0"
print(json.dumps([opened, taken]))`
    const flood = run(greedy.sandbox, ['python3', '-c', source])
    const times: number[] = []
    while (times.length < 20) {
      const began = performance.now()
      expect(await other.request({ host: 'allowed.test' })).toMatchObject({ status: 200 })
      times.push(performance.now() - began)
    }
    const { stdout, stderr } = await flood
    const [opened, taken] = JSON.parse(stdout || `"${stderr}"`)
    expect(opened).toBe(10_000)
    expect(taken).toBeGreaterThan(100)
    // And a few that are being turned away just now.
    expect(taken).toBeLessThanOrEqual(600)
    expect(times.sort((a, b) => a - b)[10]).toBeLessThan(2000)
    await greedy.recorded({ decision: 'refused', reason: 'too-many-connections' })
    expect(world.outlets.pid).toBe(pid)
    // Those it held are given back, and it works again itself.
    await expect
      .poll(() => greedy.request({ host: 'allowed.test' }).catch(() => undefined), { timeout: 10_000 })
      .toMatchObject({ status: 200 })
  })

  test('an upload that never ends is held back by its host, not kept', async () => {
    const box = await world.start({ allowOut: ['allowed.test'] })
    let there: IncomingMessage | undefined
    const leaveUnread = (request: IncomingMessage) => {
      there = request.pause()
    }
    world.upstream.answer('/unread', (_seen, _response, request) => leaveUnread(request), { early: true })
    const source = `import socket
s = socket.create_connection(("allowed.test", 80))
s.sendall(b"POST /unread HTTP/1.1\\r\\nHost: allowed.test\\r\\nTransfer-Encoding: chunked\\r\\n\\r\\n")
while True:
  s.sendall(b"10000\\r\\n" + b"a" * 65536 + b"\\r\\n"); print("sent", flush=True)`
    const before = await residentMB(world.outlets.pid)
    const upload = box.sandbox.exec({ argv: ['python3', '-c', source], env: {}, cwd: '/' })
    let sentMB = 0
    upload.stdout.on('data', (chunk: Buffer) => {
      sentMB += chunk.length / 'sent\n'.length / 16
    })
    await expect.poll(() => there, { timeout: 5000 }).toBeDefined()
    await sleep(1500)
    expect((await residentMB(world.outlets.pid)) - before).toBeLessThan(64)
    // What the kernels on the way hold, and a little more.
    expect(sentMB).toBeLessThan(64)
    expect(await box.request({ host: 'allowed.test' })).toMatchObject({ status: 200 })
    upload.kill('SIGKILL')
    await upload.exit
    // The host sees its end as soon as it reads again, and no end of the upload.
    there?.resume()
    await expect.poll(() => there?.destroyed, { timeout: 5000 }).toBe(true)
    expect(there?.complete).toBe(false)
    await box.recorded({ decision: 'allowed', path: '/unread', port: 80 })
  })

  test('a client that goes away takes its request with it', async () => {
    const box = await world.start({ allowOut: ['allowed.test'] })
    let gone = false
    world.upstream.answer('/forever', (_seen, response) => {
      response.write('a')
      response.once('close', () => {
        gone = true
      })
    })
    const socket = await box.tls('allowed.test')
    socket.write(get('/forever'))
    await once(socket, 'data')
    socket.destroy()
    await expect.poll(() => gone).toBe(true)
    await box.recorded({ decision: 'allowed', path: '/forever', status: 200 })
  })

  test('nothing of it can be seen or reached from inside but its sockets', async () => {
    const box = await world.start({ credentials: { 'allowed.test': { headers: { 'x-api-key': key } } } })
    await box.request({ host: 'allowed.test' })
    const { stdout } = await run(box.sandbox, 'cat /proc/net/unix /proc/net/tcp6 /proc/net/udp6 /proc/[0-9]*/cmdline')
    expect(stdout).not.toMatch(/egress|proxy\/main/)
    const names = stdout.match(/:(?:0050|01BB|0035) 0{32}:0000/g)
    expect(names).toHaveLength(4)
  })
})

async function residentMB(pid: number | undefined): Promise<number> {
  const [, pages] = (await readFile(`/proc/${pid}/statm`, 'utf8')).split(' ')
  return (Number(pages) * 4096) / 1024 / 1024
}
