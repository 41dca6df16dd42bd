import { spawn } from 'node:child_process'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { endLeftovers, markProcess } from './leftovers.ts'
import { type FolderLock, lockFolder } from './lock.ts'

let folder: string

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'paws-lock-'))
})
afterEach(() => rm(folder, { recursive: true, force: true }))

test('the second is told who holds the folder and where it listens; after release it may have it', async () => {
  const lock = await lockFolder(folder)
  await expect(lockFolder(folder)).rejects.toThrow('by a process that is just starting')
  await lock.announce({ pid: 4711, url: 'http://127.0.0.1:8080', children: [] })
  await expect(lockFolder(folder)).rejects.toThrow('(pid 4711, http://127.0.0.1:8080)')
  await lock.release()
  const next = await lockFolder(folder)
  expect(next.before).toBeUndefined()
  await next.release()
})

test('a killed holder frees the folder, and what it had started is told to the next', async () => {
  const script = `
    const { lockFolder } = await import(${JSON.stringify(new URL('./lock.ts', import.meta.url).href)})
    const lock = await lockFolder(${JSON.stringify(folder)})
    await lock.announce({ pid: process.pid, url: 'http://127.0.0.1:1', children: [] })
    console.log('held')
    setInterval(() => {}, 1000)`
  const holder = spawn(process.execPath, ['--input-type=module', '-e', script], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  await new Promise((done) => holder.stdout.once('data', done))
  await expect(lockFolder(folder)).rejects.toThrow(`(pid ${holder.pid}, http://127.0.0.1:1)`)
  holder.kill('SIGKILL')
  let lock: FolderLock | undefined
  await expect
    .poll(async () => {
      lock ??= await lockFolder(folder).catch(() => undefined)
      return lock?.before
    })
    .toEqual({ pid: holder.pid, url: 'http://127.0.0.1:1', children: [] })
  await lock?.release()
})

test('leftovers are asked, then killed; a later process with the same id is left alone', async () => {
  const stubborn = spawn('sh', ['-c', 'trap "" TERM; echo ready; while :; do sleep 1; done'], {
    stdio: ['ignore', 'pipe', 'ignore'],
    detached: true,
  })
  await new Promise((done) => stubborn.stdout.once('data', done))
  const mark = await markProcess('stubborn', stubborn.pid as number)
  const self = await markProcess('this test', process.pid)
  const exited = new Promise((done) => stubborn.once('exit', (_code, signal) => done(signal)))
  await endLeftovers([mark as NonNullable<typeof mark>, { ...(self as NonNullable<typeof self>), startTime: '1' }], 200)
  expect(await exited).toBe('SIGKILL')
})
