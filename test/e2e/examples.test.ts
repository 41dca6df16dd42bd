import { execFile } from 'node:child_process'
import { readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { startInstallation } from '../support/up.ts'

const run = promisify(execFile)
const root = join(import.meta.dirname, '../..')

/** What each example prints; `stderr` only where it is part of what the example shows. */
const examples: Record<string, { stdout: RegExp; stderr?: RegExp }> = {
  '01-session.sh': {
    stdout:
      /^\{\n {2}"status": "completed",\n {2}"exitCode": 0,\n {2}"stdout": "hello from inside the sandbox\\n"\n\}\n$/,
  },
  '02-result.sh': { stdout: /^\{"sorted":\[1,2,3\]\}\n$/ },
  '03-inside.sh': { stdout: /^a\nb\n[0-9a-f-]{36} cancelled\n$/ },
  '04-limits.sh': { stdout: /^the disk is full\nexit code 124\n$/, stderr: /ran past its 3 s/ },
  '05-network.sh': { stdout: /^lo +UNKNOWN [^\n]+\nno way out\nthe registry answers\n$/ },
  '06-keys.sh': {
    stdout: /^1\nkey_[0-9a-f]+ is revoked\.\nexit code 1\n$/,
    stderr: /lacks the scope "sessions:write"[\s\S]*not valid: it is unknown, revoked or expired/,
  },
  '07-secret.sh': {
    stdout: /^EXAMPLE is stored\.\n\d+ characters\nnothing found\nEXAMPLE is deleted\. [^\n]+\n$/,
  },
}

let paws: Awaited<ReturnType<typeof startInstallation>>
beforeAll(async () => {
  paws = await startInstallation()
  // The snapshot's packages come over the network.
}, 15 * 60_000)
afterAll(() => paws?.close(), 60_000)

test('every example is run here', async () => {
  const scripts = (await readdir(join(root, 'examples'))).filter((name) => name !== 'README.md')
  expect(scripts.sort()).toEqual(Object.keys(examples))
})

// In their order, one after the other: some look at what there is.
test.each(Object.entries(examples))('%s does what it says', { timeout: 90_000 }, async (name, expected) => {
  const { stdout, stderr } = await run(join(root, 'examples', name), {
    env: { PATH: process.env.PATH, HOME: paws.dataDir, PAWS_URL: paws.url, PAWS_KEY: paws.apiKey },
  })
  // Where nothing can hold a disk to its size, which `up` has said, it does not fill.
  const unlimited = name === '04-limits.sh' && process.getuid?.() !== 0
  expect(stdout, stderr).toMatch(unlimited ? /exit code 124\n$/ : expected.stdout)
  if (expected.stderr) expect(stderr).toMatch(expected.stderr)
})
