import { execFileSync } from 'node:child_process'
import { mkdir, mkdtemp, open, rm, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { openSearch } from '../search.ts'
import { tree } from './host.ts'

const value = 'what-is-looked-for'
let folder: string
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'paws-audit-test-'))
})
afterAll(() => rm(folder, { recursive: true, force: true }))

/** Names of the files below the folder, and of those with the value in them. */
async function look(leftOut: string[] = []) {
  const search = openSearch({ value })
  const notes: string[] = []
  const seen: string[] = []
  const holding: string[] = []
  for await (const item of tree(folder, (text) => notes.push(text), leftOut)) {
    const name = item.where.slice(folder.length + 1)
    seen.push(name)
    if ((await search(item)).found.length > 0) holding.push(name)
  }
  return { seen: seen.toSorted(), holding: holding.toSorted(), notes }
}

test('every regular file is looked through, however large and full of holes; links and pipes are left alone', async () => {
  await mkdir(join(folder, 'deep/er'), { recursive: true })
  await writeFile(join(folder, 'deep/er/it'), `${'x'.repeat(3_000_000)}${value}`)
  await writeFile(join(folder, 'empty'), '')
  await writeFile(join(folder, 'other'), 'nothing')
  const sparse = await open(join(folder, 'disk'), 'w')
  await sparse.write(value, 7_000_000_000)
  await sparse.truncate(10_000_000_000)
  await sparse.close()
  await symlink('/etc/hostname', join(folder, 'link'))
  await symlink('..', join(folder, 'deep/up'))
  execFileSync('mkfifo', [join(folder, 'pipe')])

  const began = performance.now()
  expect(await look()).toEqual({
    seen: ['deep/er/it', 'disk', 'empty', 'other'],
    holding: ['deep/er/it', 'disk'],
    notes: [],
  })
  // The holes alone would take longer.
  expect(performance.now() - began).toBeLessThan(5_000)
  expect((await look([join(folder, 'deep')])).seen).toEqual(['disk', 'empty', 'other'])
})

test('what can’t be read is told', async () => {
  const notes: string[] = []
  for await (const _ of tree(join(folder, 'other'), (text) => notes.push(text)));
  expect(notes).toEqual([expect.stringContaining('ENOTDIR')])
})
