import { once } from 'node:events'
import { setTimeout as sleep } from 'node:timers/promises'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { drivers } from './drivers.ts'
import { openSuite, run } from './suite.ts'

/** Any bytes as a string, in the way that commands take them: what is no UTF-8 becomes a lone surrogate. */
function fromBytes(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => String.fromCharCode(byte < 0x80 ? byte : 0xdc00 + byte)).join('')
}

const ECHO = 'import os,sys; print(os.fsencode(sys.argv[1]).hex(), os.environb[b"VALUE"].hex())'

describe.each(Object.entries(drivers))('%s: programs', { timeout: 60_000 }, (_, underTest) => {
  const suite = openSuite(underTest)

  test('arguments and environment carry any bytes but NUL', async () => {
    const sandbox = await suite.start()
    const anyBytes = fc.uint8Array({ min: 1, maxLength: 200 })
    await fc.assert(
      fc.asyncProperty(anyBytes, anyBytes, async (argument, value) => {
        const argv = ['python3', '-c', ECHO, fromBytes(argument)]
        const { stdout } = await run(sandbox, argv, { env: { VALUE: fromBytes(value) } })
        expect(stdout).toBe(`${Buffer.from(argument).toString('hex')} ${Buffer.from(value).toString('hex')}\n`)
      }),
      { numRuns: 50 },
    )
  })

  test('so do text arguments of any script', async () => {
    const sandbox = await suite.start()
    const text = fc.string({ unit: 'grapheme', maxLength: 100 }).filter((value) => !value.includes('\0'))
    await fc.assert(
      fc.asyncProperty(text, async (value) => {
        const { stdout } = await run(sandbox, ['/bin/sh', '-c', 'printf %s "$VALUE$1"', 'sh', value], {
          env: { VALUE: value },
        })
        expect(stdout).toBe(value + value)
      }),
      { numRuns: 50 },
    )
  })

  test('a script of any bytes is run as it is', async () => {
    const sandbox = await suite.start()
    const script = Buffer.concat([
      Buffer.from("printf '%s' '"),
      Buffer.from([0xff, 0xfe, 0x80, 0x0a, 0x07]),
      Buffer.from("' | od -An -tx1"),
    ])
    await sandbox.put('/workspace/script', script, { size: script.length })
    expect((await run(sandbox, ['/bin/sh', '/workspace/script'])).stdout.trim()).toBe('ff fe 80 0a 07')
  })

  test('a flood that is read slowly waits, holds nobody else back, and takes no memory here', async () => {
    const sandbox = await suite.start()
    const before = process.memoryUsage().rss
    const flood = sandbox.exec({ argv: ['yes', 'x'.repeat(1000)], env: {}, cwd: '/' })
    await once(flood.stdout, 'readable')
    for (let slowly = 0; slowly < 20; slowly++) {
      flood.stdout.read(10_000)
      expect((await run(sandbox, 'echo alive')).stdout).toBe('alive\n')
      await sleep(20)
    }
    expect(process.memoryUsage().rss - before).toBeLessThan(64 * 1024 * 1024)
    flood.kill('SIGTERM')
    flood.stdout.resume()
    expect(await flood.exit).toEqual({ signal: 'SIGTERM' })
  })

  test('a flood that is read arrives whole', async () => {
    const sandbox = await suite.start()
    const flood = sandbox.exec({
      argv: ['/bin/sh', '-c', 'head -c 50000000 /dev/zero; head -c 1000000 /dev/zero >&2'],
      env: {},
      cwd: '/',
    })
    let out = 0
    let err = 0
    flood.stdout.on('data', (chunk) => {
      out += chunk.length
    })
    flood.stderr.on('data', (chunk) => {
      err += chunk.length
    })
    expect(await flood.exit).toEqual({ exitCode: 0 })
    expect([out, err]).toEqual([50_000_000, 1_000_000])
  })

  test('a terminal is one: it has a size, a name and an owner', async () => {
    const sandbox = await suite.start()
    const script = 'stty size; echo $TERM; tty; [ -t 0 ] && echo yes'
    const { stdout } = await run(sandbox, script, { pty: { rows: 33, cols: 99 } })
    expect(stdout.replaceAll('\r', '')).toBe('33 99\nxterm-256color\n/dev/pts/0\nyes\n')
  })

  test('what is written to stdin arrives, and its end too', async () => {
    const sandbox = await suite.start()
    const program = sandbox.exec({ argv: ['wc', '-c'], env: {}, cwd: '/', stdin: true })
    program.stdin.end(Buffer.alloc(1_000_000))
    let counted = ''
    for await (const chunk of program.stdout) counted += chunk
    expect(counted.trim()).toBe('1000000')
  })
})
