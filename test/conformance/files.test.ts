import { buffer } from 'node:stream/consumers'
import { describe, expect, test } from 'vitest'
import { drivers } from './drivers.ts'
import { openSuite, run } from './suite.ts'

describe.each(Object.entries(drivers))('%s: files in and out', { timeout: 30_000 }, (_, underTest) => {
  const suite = openSuite(underTest)

  test('bytes come back as they went in', async () => {
    const sandbox = await suite.start()
    const bytes = Buffer.from(Array.from({ length: 300_000 }, (_, at) => (at * 31) % 256))
    await sandbox.put('/workspace/new/folder/file', bytes, { size: bytes.length, mode: 0o600 })
    const { size, content } = await sandbox.get('/workspace/new/folder/file', { maxBytes: 1 << 20 })
    expect(size).toBe(bytes.length)
    expect((await buffer(content)).equals(bytes)).toBe(true)
    expect((await run(sandbox, 'stat -c "%a %u" /workspace/new/folder/file')).stdout).toBe('600 0\n')
  })

  test.each([
    ['a link', 'ln -s /etc/shadow /output/x', '/output/x', 'link'],
    ['a dangling link', 'ln -s /nowhere /output/x', '/output/x', 'link'],
    ['a file behind a linked folder', 'ln -s /etc /output/d', '/output/d/passwd', 'link'],
    ['a FIFO', 'mkfifo /output/x', '/output/x', 'not-regular'],
    ['a folder', 'mkdir /output/x', '/output/x', 'not-regular'],
    ['a socket', `python3 -c 'import socket; socket.socket(1).bind("/output/x")'`, '/output/x', 'not-regular'],
    ['a device', 'true', '/dev/zero', 'not-regular'],
    ['nothing', 'true', '/output/x', 'not-found'],
    ['too large a file', 'head -c 1001 /dev/zero > /output/x', '/output/x', 'too-large'],
    ['a huge sparse file', 'truncate -s 8E /output/x || truncate -s 1T /output/x', '/output/x', 'too-large'],
  ])('%s is refused, with the reason', async (_, script, path, reason) => {
    const sandbox = await suite.start()
    expect((await run(sandbox, script)).exit).toEqual({ exitCode: 0 })
    await expect(sandbox.get(path, { maxBytes: 1000 })).rejects.toMatchObject({ name: 'FileRefused', reason })
  })

  test('no device can be made in /output', async () => {
    const sandbox = await suite.start()
    const { exit, stderr } = await run(sandbox, 'mknod /output/disk b 7 0')
    expect(exit).toEqual({ exitCode: 1 })
    expect(stderr).toContain('Operation not permitted')
  })

  test('writing follows no link', async () => {
    const sandbox = await suite.start()
    await run(sandbox, 'echo kept > /workspace/target; ln -s /workspace/target /workspace/x; ln -s /etc /workspace/d')
    const one = Buffer.from('1')
    await expect(sandbox.put('/workspace/d/x', one, { size: 1 })).rejects.toMatchObject({ reason: 'link' })
    // The last name of a path may be a link: it is replaced, or refused, but never followed.
    await sandbox
      .put('/workspace/x', one, { size: 1 })
      .catch((error) => expect(error).toMatchObject({ reason: 'link' }))
    expect((await run(sandbox, 'cat /workspace/target; ls /etc/x 2>&1')).stdout).toMatch(/^kept\nls: /)
  })
})
