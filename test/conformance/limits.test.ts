import { statfs } from 'node:fs/promises'
import { describe, expect, test } from 'vitest'
import { drivers } from './drivers.ts'
import { openSuite, python, run } from './suite.ts'

describe.each(Object.entries(drivers))('%s: limits', { timeout: 60_000 }, (_, underTest) => {
  const suite = openSuite(underTest)

  test('memory: what takes too much is killed, and others live on', async () => {
    if (!suite.enforces('Memory')) return expect(suite.driver.limitations.join()).toContain('Memory limits')
    const [greedy, other] = await Promise.all([suite.start({ memoryMB: 128 }), suite.start()])
    const { exit } = await run(greedy, [
      'python3',
      '-c',
      'b = bytearray(100 << 20); print(len(b)); b += bytes(400 << 20)',
    ])
    expect(exit).toEqual({ signal: 'SIGKILL' })
    for (const sandbox of [greedy, other]) expect((await run(sandbox, 'echo alive')).stdout).toBe('alive\n')
  })

  test('memory: files in /dev/shm and /run have their limit too', async () => {
    const sandbox = await suite.start({ memoryMB: 128 })
    const script = 'head -c 200M /dev/zero > $0/x; stat -c %s $0/x; rm $0/x'
    for (const folder of ['/dev/shm', '/run']) {
      const { stdout, stderr } = await run(sandbox, ['/bin/sh', '-c', script, folder])
      expect(stderr).toContain('No space left on device')
      // The guest agent lies in /run too.
      expect(Number(stdout)).toBeGreaterThan(60 * 1024 * 1024)
      expect(Number(stdout)).toBeLessThanOrEqual(64 * 1024 * 1024)
    }
  })

  test('memory: a sandbox that fills it with files is gone, and says why', async () => {
    if (!suite.enforces('Memory')) return expect(suite.driver.limitations.join()).toContain('Memory limits')
    const [greedy, other] = await Promise.all([suite.start({ memoryMB: 64 }), suite.start()])
    const filling = run(greedy, 'head -c 100M /dev/zero | tee /run/x /dev/shm/x > /dev/x').catch(
      (error: Error) => error,
    )
    expect((await greedy.gone).reason).toBe('out of memory')
    expect(await filling).toMatchObject({ name: 'SandboxLost' })
    expect((await run(other, 'echo alive')).stdout).toBe('alive\n')
  })

  test('processes: a fork bomb is bounded, and other sandboxes do not feel it', async () => {
    const [bomb, other] = await Promise.all([suite.start({ memoryMB: 2048 }), suite.start()])
    const source = `import json,os,time
n = 0
try:
  while n < 3000:
    if os.fork() == 0: time.sleep(60); os._exit(0)
    n += 1
except OSError as e: print(json.dumps([n, e.errno]), flush=True); os.kill(-1, 9)`
    const program = bomb.exec({ argv: ['python3', '-c', source], env: {}, cwd: '/' })
    const first = (await program.stdout[Symbol.asyncIterator]().next()).value
    const [made, errno] = JSON.parse(String(first))
    expect(errno).toBe(11)
    expect(made).toBeGreaterThan(100)
    expect(made).toBeLessThan(1024)
    expect((await run(other, 'echo alive')).stdout).toBe('alive\n')
  })

  test('processes: a bomb that never rests goes with its sandbox', async () => {
    const bomb = await suite.start()
    const program = bomb.exec({ argv: ['/bin/sh', '-c', 'f() { f | f & f; }; f'], env: {}, cwd: '/' })
    program.stderr.resume()
    await new Promise((resolve) => setTimeout(resolve, 500))
    const began = performance.now()
    await bomb.stop()
    expect(performance.now() - began).toBeLessThan(10_000)
  })

  test('disk: it fills at its size, and takes no more of the host', async () => {
    if (!suite.enforces('Disk')) return expect(suite.driver.limitations.join()).toContain('Disk limits')
    const before = await freeBytes(suite.dataDir)
    const sandbox = await suite.start({ diskMB: 64 })
    const { stdout, stderr } = await run(
      sandbox,
      'head -c 300M /dev/zero > /workspace/big; stat -c %s /workspace/big; sync',
    )
    expect(stderr).toContain('No space left on device')
    expect(Number(stdout)).toBeGreaterThan(50 * 1024 * 1024)
    expect(Number(stdout)).toBeLessThan(64 * 1024 * 1024)
    expect(before - (await freeBytes(suite.dataDir))).toBeLessThan(200 * 1024 * 1024)
    await run(sandbox, 'rm /workspace/big; echo small > /workspace/small')
    expect((await run(sandbox, 'cat /workspace/small')).stdout).toBe('small\n')
  })

  test('CPU: two busy loops get the one that was promised', async () => {
    if (!suite.enforces('CPU')) return expect(suite.driver.limitations.join()).toContain('CPU limits')
    const sandbox = await suite.start({ vcpus: 0.5 })
    const source = `import json,os,time
end = time.time() + 2
kids = []
for _ in range(2):
  if (pid := os.fork()) == 0:
    while time.time() < end: pass
    os._exit(0)
  kids.append(pid)
for pid in kids: os.waitpid(pid, 0)
t = os.times(); print(json.dumps(t.children_user + t.children_system))`
    const cpuSeconds = await python<number>(sandbox, source)
    expect(cpuSeconds).toBeLessThan(1.3)
    expect(cpuSeconds).toBeGreaterThan(0.3)
  })
})

async function freeBytes(folder: string): Promise<number> {
  const { bfree, bsize } = await statfs(folder)
  return bfree * bsize
}
