import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { lockFolder } from './folder-lock.ts'

let folder: string

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'paws-worker-lock-'))
})

afterAll(() => rm(folder, { recursive: true, force: true }))

test('a folder is one worker’s, until that has closed', async () => {
  const first = await lockFolder(folder)
  await expect(lockFolder(folder, 0)).rejects.toThrow(`A worker already runs on ${folder}. Stop that one`)
  await first.close()
  const second = await lockFolder(folder, 0)
  await second.close()
})

test('a killed worker’s folder is free for the next', async () => {
  const module = JSON.stringify(new URL('./folder-lock.ts', import.meta.url).href)
  const code = `const { lockFolder } = await import(${module})
    await lockFolder(${JSON.stringify(folder)}); console.log('held'); setInterval(() => {}, 1000)`
  const owner = spawn(process.execPath, ['--input-type=module', '-e', code], { stdio: ['ignore', 'pipe', 'inherit'] })
  await once(owner.stdout, 'data')
  await expect(lockFolder(folder, 0)).rejects.toThrow('already runs')
  owner.kill('SIGKILL')
  const next = await lockFolder(folder)
  await next.close()
})
