import { execFile } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { expect, test } from 'vitest'

const run = promisify(execFile)

test("a public address that is the machine's own is refused, and another one is not", async () => {
  // A network of the test's own, in which the machine has a public address.
  const upstream = fileURLToPath(new URL('upstream.ts', import.meta.url))
  const ask = `const { refusalHere } = await import(${JSON.stringify(upstream)})
    console.log(JSON.stringify(['8.8.4.4', '8.8.8.8'].map((address) => refusalHere(address) ?? null)))`
  const inside = 'ip link set lo up && ip addr add 8.8.4.4/32 dev lo && exec "$0" --input-type=module -e "$1"'
  const { stdout } = await run('unshare', ['-Urn', 'sh', '-c', inside, process.execPath, ask])
  expect(JSON.parse(stdout)).toEqual(["8.8.4.4 is an address of the worker's own machine", null])
})
