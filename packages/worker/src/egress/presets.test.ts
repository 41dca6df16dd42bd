import { chmod, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import { PresetUnavailable } from '../sandbox/outlet.ts'
import { openPresets } from './presets.ts'

let folder: string
/** A machine on which these programs are all there is. */
async function program(name: string, script: string) {
  await writeFile(join(folder, name), `#!/bin/sh\n${script}\n`)
  await chmod(join(folder, name), 0o755)
}

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'paws-presets-'))
  vi.stubEnv('PATH', folder)
})

afterEach(async () => {
  vi.unstubAllEnvs()
  await rm(folder, { recursive: true })
})

test("npm's registry, without the password that it may have", async () => {
  await program('npm', '[ "$*" = "config get registry" ] && pwd >&2 && echo https://me:word@Registry.test/npm/')
  expect(await openPresets()('npm')).toEqual({
    hosts: ['registry.test'],
    env: { npm_config_registry: 'https://registry.test/npm/' },
  })
})

test("pip's index; where none is set, the host of its files too", async () => {
  await program('python3', `echo '{"index":"https://index.test/simple","files":["files.test"]}'`)
  expect(await openPresets()('pypi')).toEqual({
    hosts: ['files.test', 'index.test'],
    env: { PIP_INDEX_URL: 'https://index.test/simple' },
  })
})

test('one that can not be had is named, with what to do, and asked for again', async () => {
  const presetOf = openPresets()
  await expect(presetOf('npm')).rejects.toThrow(
    'preset:npm (the registry that npm is set to) stands for nothing here: ' +
      'the worker\'s machine does not say. There, install npm for the user that the worker runs as, or set its "registry"',
  )
  await expect(presetOf('npm')).rejects.toBeInstanceOf(PresetUnavailable)
  await program('npm', 'echo http://registry.test/')
  expect((await presetOf('npm')).hosts).toEqual(['registry.test'])
})

test.each([
  ['http://registry.test:4873/', 'has the port 4873, and only 80 and 443 lead out of a sandbox'],
  ['https://10.0.0.7/', 'has no name, and sandboxes go by names'],
  ['http://[::1]/', 'has no name'],
  ['file:///srv/npm', 'is none of http or https'],
  ['undefined', 'is none of http or https'],
])('a registry at %s can not be reached from inside, and that is said', async (url, why) => {
  await program('npm', `echo '${url}'`)
  await expect(openPresets()('npm')).rejects.toThrow(
    `preset:npm (the registry that npm is set to) stands for nothing here: its address ${why}`,
  )
})

test('this machine is asked once', async () => {
  await program('npm', `echo x >> '${folder}/asked'; echo https://registry.test/`)
  const presetOf = openPresets()
  const [first, second] = await Promise.all([presetOf('npm'), presetOf('npm')])
  expect(first).toBe(second)
})
