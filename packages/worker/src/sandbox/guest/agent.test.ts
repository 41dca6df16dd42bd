import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { link, mkdir, mkdtemp, readdir, readFile, rm, stat, symlink, writeFile } from 'node:fs/promises'
import { type AddressInfo, createServer, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import { buffer, text } from 'node:stream/consumers'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { type Command, FileRefused, SandboxLost } from '../driver.ts'
import { type StartedGuest, startGuest } from '../testing/start-guest.ts'
import { connectGuest, type GuestAgent, GuestRefused } from './agent.ts'

let started: StartedGuest
let guest: GuestAgent
let folder: string

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'paws-guest-test-'))
  started = await startGuest()
  guest = connectGuest(started.stream)
})
afterEach(async () => {
  await guest.shutdown({ graceMs: 0 })
  await started.ended
  await rm(folder, { recursive: true })
})

const env = { PATH: '/usr/bin:/bin' }
const sh = (script: string, more: Partial<Command> = {}) =>
  guest.exec({ argv: ['sh', '-c', script], env, cwd: '/', ...more })

async function run(command: Command) {
  const program = guest.exec(command)
  const [stdout, stderr, exit] = await Promise.all([buffer(program.stdout), text(program.stderr), program.exit])
  return { stdout, stderr, exit }
}
const runSh = (script: string) => run({ argv: ['sh', '-c', script], env, cwd: '/' })

const refusal = (promise: Promise<unknown>) => promise.catch((error: FileRefused) => error)

test('a program gets its stdin and its output comes back, byte by byte', async () => {
  const bytes = Buffer.from(Array.from({ length: 256 }, (_, i) => i))
  const program = guest.exec({ argv: ['cat'], env, cwd: '/', stdin: true })
  program.stdin.write(bytes)
  program.stdin.end(bytes)
  expect(await buffer(program.stdout)).toEqual(Buffer.concat([bytes, bytes]))
  expect(await program.exit).toEqual({ exitCode: 0 })
})

test('stdout and stderr come apart, and stdin is at its end unless asked for', async () => {
  const { stdout, stderr, exit } = await runSh('cat; echo out; echo err >&2; exit 3')
  expect([stdout.toString(), stderr, exit]).toEqual(['out\n', 'err\n', { exitCode: 3 }])
})

test('a program that cannot be started says why', async () => {
  expect(await run({ argv: ['no-such'], env, cwd: '/' })).toMatchObject({
    stderr: "paws: can't run no-such: No such file or directory\n",
    exit: { exitCode: 127 },
  })
  expect(await run({ argv: ['/etc'], env, cwd: '/' })).toMatchObject({
    stderr: "paws: can't run /etc: Permission denied\n",
    exit: { exitCode: 126 },
  })
  expect(await run({ argv: ['true'], env, cwd: '/no-such' })).toMatchObject({
    stderr: "paws: can't enter /no-such: No such file or directory\n",
    exit: { exitCode: 127 },
  })
})

test('arguments and variables hold any bytes but NUL, up to what Linux takes', async () => {
  const odd = { NEWLINE: 'a\nb', QUOTES: `'"$(id)\`id\`\\`, RAW: 'x\udcff\udc80y', EMPTY: '', 'odd name': 'é💥' }
  const { stdout } = await run({ argv: ['cat', '/proc/self/environ'], env: odd, cwd: '/' })
  expect(stdout.toString('latin1')).toBe(
    `NEWLINE=a\nb\0QUOTES='"$(id)\`id\`\\\0RAW=x\xff\x80y\0EMPTY=\0odd name=${Buffer.from('é💥').toString('latin1')}\0`,
  )
  const large = 'x'.repeat(120_000)
  const counted = await run({
    argv: ['/bin/sh', '-c', 'printf %s "$@" | wc -c', 'sh', ...Array(8).fill(large)],
    env: { ...env, ...Object.fromEntries(Array.from({ length: 4 }, (_, i) => [`L${i}`, large])) },
    cwd: '/',
  })
  // printf is built into sh, so that nothing large is executed a second time; wc still inherits what fits.
  expect(counted.stdout.toString()).toBe('960000\n')
  expect(await run({ argv: ['true', ...Array(40).fill(large)], env, cwd: '/' })).toMatchObject({
    stderr: "paws: can't run true: Argument list too long\n",
    exit: { exitCode: 126 },
  })
  expect(() => guest.exec({ argv: ['a\0b'], env, cwd: '/' })).toThrow('An argument holds a NUL character')
})

test('a signal reaches the whole process group, and a death by it is told apart from an exit code', async () => {
  const program = sh('sleep 1000 & echo $!; wait')
  const [child] = await once(program.stdout, 'data')
  program.kill('SIGTERM')
  expect(await program.exit).toEqual({ signal: 'SIGTERM' })
  // Its death may be a moment later than the shell's.
  const state = async () => (await runSh(`kill -0 ${Number(String(child))} 2>&1`)).exit
  await expect.poll(state).toEqual({ exitCode: 1 })
  const soon = guest.exec({ argv: ['sleep', '1000'], env, cwd: '/' })
  soon.kill('SIGKILL')
  expect(await soon.exit).toEqual({ signal: 'SIGKILL' })
})

test('a terminal has a size, can be resized, takes ^C and ^D, and is the controlling one', async () => {
  const program = sh('stty -echo; trap "stty size" WINCH; stty size; cat < /dev/tty; echo end; stty size; cat', {
    pty: { rows: 20, cols: 70 },
    stdin: true,
  })
  let seen = ''
  program.stdout.on('data', (chunk) => {
    seen += chunk
  })
  const until = async (what: string) => expect.poll(() => seen).toContain(what)
  await until('20 70\r\n')
  program.stdin.write('typed\n')
  await until('typed\r\n')
  program.resize({ rows: 30, cols: 90 })
  program.stdin.write('\x04')
  await until('end\r\n')
  await until('30 90\r\n')
  program.stdin.write('\x03')
  expect(await program.exit).toEqual({ signal: 'SIGINT' })
})

test('a terminal gives back all that was written before the program ended', async () => {
  for (let i = 0; i < 10; i++) {
    const program = sh('head -c 30000 /dev/zero | tr "\\0" x; echo END', { pty: { rows: 1, cols: 1 } })
    expect((await buffer(program.stdout)).toString()).toBe(`${'x'.repeat(30_000)}END\r\n`)
    expect(await program.exit).toEqual({ exitCode: 0 })
  }
})

test('a reader that is slow holds back its program only, and nothing piles up', async () => {
  const size = 100_000_000
  const flood = guest.exec({ argv: ['head', '-c', String(size), '/dev/zero'], env, cwd: '/' })
  await sleep(100)
  expect((await runSh('echo meanwhile')).stdout.toString()).toBe('meanwhile\n')
  expect(flood.stdout.readableLength).toBeLessThanOrEqual(256 * 1024)
  const memory = /VmRSS:\s+(\d+) kB/.exec((await runSh('cat /proc/1/status')).stdout.toString())
  expect(Number(memory?.[1])).toBeLessThan(8 * 1024)
  let received = 0
  for await (const chunk of flood.stdout) {
    received += chunk.length
    if (received < 3_000_000) await sleep(5)
  }
  expect(received).toBe(size)
  expect(await flood.exit).toEqual({ exitCode: 0 })
})

test('a program that does not read its stdin holds back nobody else', async () => {
  const program = guest.exec({ argv: ['sleep', '1000'], env, cwd: '/', stdin: true })
  while (program.stdin.write(Buffer.alloc(65_536))) await sleep(1)
  program.stdin.write(Buffer.alloc(10_000_000))
  expect((await runSh('echo meanwhile')).stdout.toString()).toBe('meanwhile\n')
  program.kill('SIGKILL')
  expect(await program.exit).toEqual({ signal: 'SIGKILL' })
})

test('a process left behind neither delays the exit nor loses what was written before it', async () => {
  const { stdout, exit } = await runSh('head -c 60000 /dev/zero; sleep 1000 & exit 7')
  expect(stdout.length).toBe(60_000)
  expect(exit).toEqual({ exitCode: 7 })
})

test('orphans are reaped, and programs get clean descriptors and signals', async () => {
  await runSh('(sleep 0.05 & sleep 0.05 & sleep 0.05 &); exit')
  const zombies = async () => (await runSh('cat /proc/[0-9]*/stat | grep -c ") Z "')).stdout.toString()
  await sleep(100)
  await expect.poll(zombies).toBe('0\n')
  const direct = async (...argv: string[]) => (await run({ argv, env, cwd: '/' })).stdout.toString()
  // The fourth is the one by which ls reads the directory.
  expect(await direct('ls', '/proc/self/fd')).toBe('0\n1\n2\n3\n')
  expect((await direct('grep', '-E', 'Sig(Blk|Ign)', '/proc/self/status')).match(/[0-9a-f]{16}/g)).toEqual(
    Array(2).fill('0'.repeat(16)),
  )
  expect(await direct('sh', '-c', 'umask')).toBe('0022\n')
})

test('a file arrives as it was sent, with its mode and the directories it needs, and comes back', async () => {
  const content = Buffer.alloc(50_000_000, createHash('sha512').update('seed').digest())
  const path = join(folder, 'new/deep/file')
  await guest.put(path, Readable.from([content.subarray(0, 1), content.subarray(1)]), {
    size: content.length,
    mode: 0o750,
  })
  expect((await readFile(path)).equals(content)).toBe(true)
  expect((await stat(path)).mode & 0o7777).toBe(0o750)
  const { size, content: back } = await guest.get(path, { maxBytes: content.length })
  expect(size).toBe(content.length)
  expect((await buffer(back)).equals(content)).toBe(true)
  await guest.put(path, Buffer.alloc(0), { size: 0 })
  expect((await buffer((await guest.get(path, { maxBytes: 0 })).content)).length).toBe(0)
  expect(await readdir(join(folder, 'new/deep'))).toEqual(['file'])
})

test('an exec right after a put finds the file, though nobody has awaited it', async () => {
  const path = join(folder, 'script')
  const content = Buffer.from('#!/bin/sh\necho ran\n')
  const written = guest.put(path, content, { size: content.length, mode: 0o755 })
  expect((await run({ argv: [path], env, cwd: '/' })).stdout.toString()).toBe('ran\n')
  await written
})

test('only regular files are read or written, and no link is followed', async () => {
  await writeFile(join(folder, 'file'), 'content')
  await mkdir(join(folder, 'dir'))
  await writeFile(join(folder, 'dir/inner'), 'inner')
  await symlink('file', join(folder, 'to-file'))
  await symlink('dir', join(folder, 'to-dir'))
  await symlink('/no-such', join(folder, 'dangling'))
  await link(join(folder, 'file'), join(folder, 'hard'))
  await runSh(`mkfifo ${folder}/fifo`)
  const server = createServer().listen(join(folder, 'socket'))
  await once(server, 'listening')
  const cases = {
    'to-file': 'link',
    dangling: 'link',
    'to-dir/inner': 'link',
    dir: 'not-regular',
    '': 'not-regular',
    'file/inner': 'not-regular',
    fifo: 'not-regular',
    socket: 'not-regular',
    'dir/../file': 'io',
  }
  for (const [name, reason] of Object.entries(cases)) {
    const got = await refusal(guest.get(`${folder}/${name}`, { maxBytes: 1000 }))
    const put = await refusal(guest.put(`${folder}/${name}`, Buffer.from('x'), { size: 1 }))
    expect([name, got, put]).toEqual([name, expect.any(FileRefused), expect.any(FileRefused)])
    expect([name, got, put]).toMatchObject([name, { reason }, { reason }])
  }
  expect(await refusal(guest.get('/dev/null', { maxBytes: 1 }))).toMatchObject({ reason: 'not-regular' })
  expect(await refusal(guest.get('relative', { maxBytes: 1 }))).toMatchObject({ reason: 'io' })
  expect(await refusal(guest.get(join(folder, 'none'), { maxBytes: 1 }))).toMatchObject({ reason: 'not-found' })
  expect(await refusal(guest.get(join(folder, 'file'), { maxBytes: 6 }))).toMatchObject({ reason: 'too-large' })
  expect(await buffer((await guest.get(join(folder, 'hard'), { maxBytes: 7 })).content)).toEqual(Buffer.from('content'))
  expect(await readFile(join(folder, 'file'), 'utf8')).toBe('content')
  server.close()
})

test('a put that is shorter or longer than announced, or whose source fails, leaves nothing behind', async () => {
  const path = join(folder, 'file')
  const put = (content: Readable) => refusal(guest.put(path, content, { size: 4 }))
  expect(await put(Readable.from([Buffer.from('123')]))).toMatchObject({ reason: 'io' })
  expect(await put(Readable.from([Buffer.from('12345')]))).toMatchObject({ reason: 'too-large' })
  const failing = new Readable({ read: () => undefined })
  failing.push('12')
  setTimeout(() => failing.destroy(new Error('the source is broken')), 20)
  expect(await put(failing)).toMatchObject({ message: 'the source is broken' })
  await expect(guest.put(path, Buffer.from('12'), { size: 3 })).rejects.toThrow('announced with 3 bytes and has 2')
  await guest.ping()
  expect(await readdir(folder)).toEqual([])
})

test('what a full disk answers is told, while most of the file is still to come', async () => {
  expect((await runSh(`mount -t tmpfs -o size=64k none ${folder}`)).exit).toEqual({ exitCode: 0 })
  const error = await refusal(guest.put(join(folder, 'file'), Buffer.alloc(5_000_000), { size: 5_000_000 }))
  expect(error).toMatchObject({ reason: 'io', message: expect.stringContaining('file: No space left on device') })
  expect((await runSh(`ls -A ${folder}`)).stdout.toString()).toBe('')
})

test('a port inside is reached both ways, half-closed, by IPv4 and by IPv6', async () => {
  for (const host of ['127.0.0.1', '::1']) {
    const server = createServer({ allowHalfOpen: true }, async (socket: Socket) => {
      socket.end(
        createHash('sha256')
          .update(await buffer(socket))
          .digest(),
      )
    }).listen(0, host)
    await once(server, 'listening')
    const socket = await guest.connect((server.address() as AddressInfo).port)
    const sent = Buffer.alloc(3_000_000, 'request')
    socket.end(sent)
    expect(await buffer(socket)).toEqual(createHash('sha256').update(sent).digest())
    server.close()
    await once(server, 'close')
    const refused = await guest.connect(1).catch((error: Error) => error)
    expect(refused).toBeInstanceOf(GuestRefused)
    expect(refused).toMatchObject({ message: 'The sandbox did not connect to port 1: nothing answers there' })
  }
})

test('a connection that is dropped on one side ends on the other', async () => {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const accepted = once(server, 'connection')
  const socket = await guest.connect((server.address() as AddressInfo).port)
  const [peer] = (await accepted) as [Socket]
  peer.on('error', () => undefined)
  socket.destroy()
  await once(peer.resume(), 'close')
  server.close()
})

test('clock and entropy belong to the host here, and that is answered', async () => {
  await expect(guest.setTime(Date.now())).rejects.toThrow('The guest agent refused setTime: Operation not permitted')
  await expect(guest.reseed(Buffer.alloc(64))).rejects.toThrow(
    'The guest agent refused reseed: Operation not permitted',
  )
})

test('more requests than the agent takes are refused, and the rest go on', async () => {
  const programs = Array.from({ length: 300 }, () => guest.exec({ argv: ['cat'], env, cwd: '/', stdin: true }))
  const outcomes = Promise.allSettled(programs.map((program) => program.exit))
  await guest.ping()
  for (const program of programs) program.stdin.end()
  const refused = (await outcomes).filter((outcome) => outcome.status === 'rejected')
  expect(refused.length).toBe(300 - 256)
  expect(refused[0]?.reason).toMatchObject({
    name: 'GuestRefused',
    message: expect.stringContaining('too many requests'),
  })
})

test('shutdown ends at once when everybody heeds SIGTERM, and tells how programs ended', async () => {
  const program = sh('trap "echo bye; exit 5" TERM; echo ready; while :; do sleep 0.05; done')
  await once(program.stdout, 'data')
  const output = text(program.stdout)
  const start = performance.now()
  await guest.shutdown({ graceMs: 5000 })
  expect(performance.now() - start).toBeLessThan(1500)
  expect([await output, await program.exit]).toEqual(['bye\n', { exitCode: 5 }])
  expect(await started.ended).toEqual({ code: 0, signal: null, stderr: '' })
})

test('shutdown kills who does not heed SIGTERM after the grace', async () => {
  const program = sh('trap "" TERM; echo ready; while :; do sleep 1; done')
  await once(program.stdout, 'data')
  const start = performance.now()
  await guest.shutdown({ graceMs: 300 })
  expect(performance.now() - start).toBeGreaterThan(280)
  expect((await started.ended).code).toBe(0)
  await expect(program.exit).rejects.toThrow(SandboxLost)
  expect(await guest.gone).toEqual({ reason: 'it was shut down' })
})

test('without its host the agent ends, and everybody with it', async () => {
  const program = sh('trap "" TERM HUP; echo ready; sleep 1000')
  await once(program.stdout, 'data')
  started.stream.destroy()
  expect(await started.ended).toEqual({ code: 1, signal: null, stderr: 'paws-guest: the host is gone\n' })
  await expect(program.exit).rejects.toThrow('The sandbox is gone: the connection to its agent was closed')
  await expect(guest.ping()).rejects.toThrow(SandboxLost)
  await expect(guest.exec({ argv: ['true'], env, cwd: '/' }).exit).rejects.toThrow(SandboxLost)
})
