import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readdir, readFile, readlink } from 'node:fs/promises'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { describe, expect, test, vi } from 'vitest'
import { diskMB, drivers } from './drivers.ts'
import { testImage } from './image.ts'
import { descendants, openSuite, run, sandboxProcesses } from './suite.ts'

describe.each(Object.entries(drivers))('%s: beginning and end', { timeout: 60_000 }, (name, underTest) => {
  const suite = openSuite(underTest)

  test('stop gives back all that twenty sandboxes held', async () => {
    const all = async () => [...(await held(suite.instance, suite.dataDir)), ...(await heldHere())]
    const before = await all()
    for (let round = 0; round < 5; round++) {
      const sandboxes = await Promise.all([1, 2, 3, 4].map(() => suite.start()))
      for (const sandbox of sandboxes) expect((await run(sandbox, 'echo alive')).stdout).toBe('alive\n')
      await Promise.all(sandboxes.map((sandbox) => sandbox.stop()))
    }
    // Ready slots come and go; there are again as many as there were.
    await vi.waitFor(async () => expect(await all()).toEqual(before), 5000)
  })

  test('stop lets programs end by themselves, for as long as it was told', async () => {
    const sandbox = await suite.start()
    const program = sandbox.exec(shell('trap "echo bye; exit 7" TERM; echo ready; while :; do sleep 0.05; done'))
    const output = program.stdout[Symbol.asyncIterator]()
    await output.next()
    const stopped = sandbox.stop({ graceMs: 5000 })
    expect(`${(await output.next()).value}`).toBe('bye\n')
    expect(await program.exit).toEqual({ exitCode: 7 })
    await stopped
    expect(await sandbox.gone).toEqual({ reason: 'stopped' })
  })

  test('stop kills what does not listen, detached or not', async () => {
    const sandbox = await suite.start()
    const program = sandbox.exec(
      shell('trap "" TERM; setsid sh -c "trap \\"\\" TERM; sleep 60" & echo ready; sleep 60'),
    )
    await program.stdout[Symbol.asyncIterator]().next()
    const began = performance.now()
    await sandbox.stop({ graceMs: 300 })
    expect(performance.now() - began).toBeGreaterThan(250)
    expect(performance.now() - began).toBeLessThan(4000)
    await expect(program.exit).rejects.toMatchObject({ name: 'SandboxLost' })
  })

  test('closing the driver stops what still runs, and starts nothing more', async () => {
    const instance = `${suite.instance}-closed`
    const driver = await underTest.open({ dataDir: suite.dataDir, instance, ready: 1 })
    const spec = { id: 'a', imageDir: await testImage(), vcpus: 1, memoryMB: 128, diskMB, hostname: 'a' }
    const [early, sandbox] = [driver.start(spec), await driver.start(spec)]
    await driver.close()
    expect(await Promise.all([sandbox.gone, (await early).gone])).toEqual([
      { reason: 'stopped' },
      { reason: 'stopped' },
    ])
    expect(await held(instance, suite.dataDir)).toEqual([])
    await expect(driver.start(spec)).rejects.toThrow('closing')
  })

  test('a sandbox that cannot start says why, and leaves nothing', async () => {
    const before = await held(suite.instance, suite.dataDir)
    await expect(suite.start({ imageDir: '/nowhere' })).rejects.toThrow(/\/nowhere: No such file or directory/)
    await vi.waitFor(async () => expect(await held(suite.instance, suite.dataDir)).toEqual(before), 5000)
  })

  test('kill -9 of the worker takes its sandboxes along, and the next one clears up', async () => {
    const instance = `${suite.instance}-killed`
    const host = spawn(
      process.execPath,
      [join(import.meta.dirname, 'worker.ts'), name, suite.dataDir, instance, await testImage()],
      {
        stdio: ['ignore', 'pipe', 'inherit'],
      },
    )
    for await (const line of createInterface(host.stdout)) if (line === 'ready') break
    const pids = await descendants(host.pid ?? 0)
    expect(pids.length).toBeGreaterThan(4)
    host.kill('SIGKILL')
    await once(host, 'exit')
    await vi.waitFor(async () => expect(await living(pids)).toEqual([]), 5000)
    const next = await underTest.open({ dataDir: suite.dataDir, instance, ready: 0 })
    await vi.waitFor(async () => expect(await held(instance, suite.dataDir)).toEqual([]), 5000)
    await next.close()
  })
})

describe.each(Object.entries(drivers))('%s: a death', (_, underTest) => {
  // No slot is ready, so that all that descends from here is of the sandbox.
  const suite = openSuite(underTest, { ready: 0 })

  test('a sandbox that dies says so, and what was asked of it fails', async () => {
    const sandbox = await suite.start()
    const program = sandbox.exec(shell('echo ready; sleep 60'))
    await program.stdout[Symbol.asyncIterator]().next()
    for (const pid of await sandboxProcesses()) killIfThere(pid)
    expect((await sandbox.gone).reason).toContain('process 1 ended')
    await expect(program.exit).rejects.toMatchObject({ name: 'SandboxLost' })
    await expect(sandbox.get('/etc/passwd', { maxBytes: 10_000 })).rejects.toMatchObject({ name: 'SandboxLost' })
    await sandbox.stop()
  })
})

function shell(script: string) {
  return { argv: ['/bin/sh', '-c', script], env: {}, cwd: '/' }
}

/** Names of everything on this host that a driver of this name holds now: mounts, groups, loop devices, folders. */
async function held(instance: string, dataDir: string): Promise<string[]> {
  const mounts = (await readFile('/proc/self/mountinfo', 'utf8'))
    .split('\n')
    .filter((line) => line.includes(`-${instance}-`))
  const folders = (await readdir(join(dataDir, 'slots'))).filter((name) => name.includes(`-${instance}-`))
  const loops = await Promise.all(
    (await readdir('/sys/block')).map((device) =>
      // Most devices are none, or attached to nothing.
      readFile(`/sys/block/${device}/loop/backing_file`, 'utf8').catch(() => ''),
    ),
  )
  const disks = loops.filter((file) => file.includes(`-${instance}-`))
  const groups = (await allGroups('/sys/fs/cgroup')).filter((path) => path.includes(`-${instance}-`))
  return Object.entries({ mounts, folders, disks, groups }).flatMap(([kind, list]) =>
    list.length > 0 ? `${list.length} ${kind}` : [],
  )
}

async function allGroups(folder: string): Promise<string[]> {
  // A group may go while it is read.
  const entries = await readdir(folder, { withFileTypes: true }).catch(() => [])
  const below = entries.filter((entry) => entry.isDirectory()).map((entry) => join(folder, entry.name))
  return [...below, ...(await Promise.all(below.map(allGroups))).flat()]
}

/** How many processes, networks and descriptors this process and its children hold. */
async function heldHere(): Promise<string[]> {
  const pids = await sandboxProcesses()
  const networks = await Promise.all(pids.map((pid) => readlink(`/proc/${pid}/ns/net`)))
  const descriptors = await readdir('/proc/self/fd')
  return [`${pids.length} processes, ${new Set(networks).size} networks, ${descriptors.length} descriptors`]
}

/** Those of the processes that have not ended; one that nobody has waited for yet has. */
async function living(pids: number[]): Promise<number[]> {
  const states = await Promise.all(pids.map((pid) => readFile(`/proc/${pid}/stat`, 'utf8').catch(() => ') Z')))
  return pids.filter((_, at) => !/\) Z/.test(states[at] ?? ''))
}

/** The first one's death may have ended the others by now. */
function killIfThere(pid: number) {
  try {
    process.kill(pid, 'SIGKILL')
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error
  }
}
