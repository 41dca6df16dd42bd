import { mkdtemp, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { makeDataFolder } from './folder.ts'

test('a data folder is made with those above it, and again changes nothing', async () => {
  const root = await mkdtemp(join(tmpdir(), 'paws-folder-'))
  const folder = join(root, 'a', 'b')
  await makeDataFolder(folder, 0o711)
  await makeDataFolder(folder, 0o700)
  expect((await stat(folder)).mode & 0o777).toBe(0o711)

  await writeFile(join(root, 'file'), '')
  await expect(makeDataFolder(join(root, 'file'), 0o700)).rejects.toThrow(/PAWS_DATA is .* is no folder/)
  await expect(makeDataFolder(join(root, 'file', 'below'), 0o700)).rejects.toThrow(/is no folder\). Choose a folder/)
  await rm(root, { recursive: true })
})

test('a place where no folder can be is refused, not tried for ever', async () => {
  await expect(makeDataFolder('/proc/nope/below', 0o700)).rejects.toThrow("/proc/nope/below, which can't be made")
})
