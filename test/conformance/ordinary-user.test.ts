import { execFile } from 'node:child_process'
import { readdirSync } from 'node:fs'
import { link, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { basename, dirname, join } from 'node:path'
import { promisify } from 'node:util'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { testArchive } from './image.ts'

const run = promisify(execFile)
const user = `paws-test-${process.pid}`

// The user may not pass the folders above this tree or above Node, so both are shown at a place of their own.
const AS_USER = `
  set -eu
  mount -t tmpfs tmpfs /mnt
  mkdir /mnt/node /mnt/tree
  mount --bind "$2" /mnt/node
  mount --bind "$3" /mnt/tree
  cd /mnt/tree
  exec setpriv --reuid "$1" --regid "$1" --init-groups env HOME="$4" TMPDIR="$4" \\
    PATH=/mnt/node:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin \\
    node node_modules/vitest/vitest.mjs run --no-cache --no-file-parallelism --reporter=default --reporter=json --outputFile="$4/report.json" \\
    --root /mnt/tree --config "$4/vitest.config.mjs" --exclude '**/ordinary-user.test.ts' test/conformance`

interface Report {
  testResults: {
    name: string
    assertionResults: { fullName: string; status: string; failureMessages: string[] }[]
  }[]
}

// Started by somebody who isn't root, the other files are this test already: they run as an ordinary user.
describe.runIf(process.getuid?.() === 0)('the whole suite, run by an ordinary user with sub-ids', () => {
  let home: string
  let report: Report
  let output: string

  beforeAll(async () => {
    const archive = await testArchive()
    home = await mkdtemp(join(tmpdir(), 'paws-ordinary-'))
    await link(archive, join(home, basename(archive)))
    // The project's own settings prepare what these files don't need, and write into this tree.
    await writeFile(
      join(home, 'vitest.config.mjs'),
      'export default { test: { testTimeout: 30_000, hookTimeout: 120_000 } }',
    )
    await run('useradd', ['--no-create-home', '--home-dir', home, user])
    await run('chown', [user, home])
    const tree = join(import.meta.dirname, '../..')
    const places = [user, dirname(process.execPath), tree, home]
    // A failed test makes it end with 1; the report says which.
    const child = run('unshare', ['--mount', '--propagation', 'private', 'sh', '-c', AS_USER, 'sh', ...places], {
      maxBuffer: 64 * 1024 * 1024,
    }).catch((error: { stdout: string; stderr: string }) => error)
    const { stdout, stderr } = await child
    output = stdout + stderr
    const text = await readFile(join(home, 'report.json'), 'utf8').catch((cause) => {
      throw new Error(`The suite did not run as ${user}: ${output}`, { cause })
    })
    report = JSON.parse(text)
  }, 180_000)

  afterAll(async () => {
    await run('userdel', [user])
    await rm(home, { recursive: true })
  })

  const files = readdirSync(import.meta.dirname).filter((name) => /(?<!ordinary-user)\.test\.ts$/.test(name))
  test.each(files)('%s', (file) => {
    const result = report.testResults.find(({ name }) => name.endsWith(`/${file}`))
    const failed = result?.assertionResults.filter(({ status }) => status !== 'passed')
    expect(
      failed?.map(({ fullName, failureMessages }) => `${fullName}: ${failureMessages.join()}`),
      output,
    ).toEqual([])
    expect(result?.assertionResults.length).toBeGreaterThan(0)
  })
})
