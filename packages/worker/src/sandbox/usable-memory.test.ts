import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir, totalmem } from 'node:os'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { usableMemoryMB } from './usable-memory.ts'

test('the least of all groups above this process counts, not that of its leaf alone', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'paws-memory-'))
  await mkdir(join(folder, 'a.slice/b.service/paws-worker'), { recursive: true })
  await writeFile(join(folder, 'mountinfo'), `30 23 0:26 / ${folder} rw,nosuid - cgroup2 cgroup2 rw\n`)
  await writeFile(join(folder, 'cgroup'), '0::/a.slice/b.service/paws-worker\n')
  await writeFile(join(folder, 'a.slice/b.service/paws-worker/memory.max'), 'max\n')
  await writeFile(join(folder, 'a.slice/b.service/memory.max'), `${96 * 1024 ** 2}\n`)
  await writeFile(join(folder, 'a.slice/memory.max'), `${128 * 1024 ** 2}\n`)
  expect(await usableMemoryMB(folder)).toBe(96)
  await rm(folder, { recursive: true })
})

test('it is never more than the machine has', async () => {
  const most = Math.floor(totalmem() / 1024 ** 2)
  const usable = await usableMemoryMB()
  expect(usable).toBeGreaterThan(0)
  expect(usable).toBeLessThanOrEqual(most)
})
