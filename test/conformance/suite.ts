import { randomBytes } from 'node:crypto'
import { readdir, readFile } from 'node:fs/promises'
import { text } from 'node:stream/consumers'
import { afterAll, afterEach, beforeAll } from 'vitest'
import type { Command, Driver, Exit, Sandbox, SandboxSpec } from '../../packages/worker/src/sandbox/driver.ts'
import { type DriverUnderTest, diskMB } from './drivers.ts'
import { testFolder, testImage } from './image.ts'

export interface Outcome {
  stdout: string
  stderr: string
  exit: Exit
}

/** An open driver with a name of its own; what a test starts is stopped after it. */
export interface Suite {
  driver: Driver
  dataDir: string
  instance: string
  start(spec?: Partial<SandboxSpec>): Promise<Sandbox>
  /** Whether the driver holds sandboxes to a limit, rather than saying that it can't */
  enforces(limit: 'CPU' | 'Memory' | 'Disk'): boolean
}

export function openSuite(underTest: DriverUnderTest, { ready = 2 } = {}): Suite {
  const started: Sandbox[] = []
  const instance = `test-${randomBytes(4).toString('hex')}`
  let imageDir: string
  const suite = {
    instance,
    dataDir: testFolder(),
    async start(spec) {
      const usual = { id: crypto.randomUUID(), imageDir, vcpus: 1, memoryMB: 256, diskMB, hostname: 'box' }
      const sandbox = await suite.driver.start({ ...usual, ...spec })
      started.push(sandbox)
      return sandbox
    },
    enforces: (limit) => !suite.driver.limitations.some((sentence) => sentence.includes(limit)),
  } as Suite
  beforeAll(async () => {
    imageDir = await testImage()
    suite.driver = await underTest.open({ dataDir: suite.dataDir, instance, ready })
  }, 120_000)
  afterEach(async () => {
    await Promise.all(started.splice(0).map((sandbox) => sandbox.stop()))
  })
  afterAll(async () => {
    // When opening it has failed there is none, and that failure is the one to hear of.
    await suite.driver?.close()
  })
  return suite
}

/** Runs a shell script, or a program with its arguments, to its end. */
export async function run(sandbox: Sandbox, what: string | string[], command: Partial<Command> = {}): Promise<Outcome> {
  const argv = typeof what === 'string' ? ['/bin/sh', '-c', what] : what
  const program = sandbox.exec({ argv, env: {}, cwd: '/workspace', ...command })
  const [stdout, stderr] = await Promise.all([text(program.stdout), text(program.stderr)])
  return { stdout, stderr, exit: await program.exit }
}

/** Runs Python source inside and returns the JSON that it prints. */
export async function python<T>(sandbox: Sandbox, source: string, ...args: string[]): Promise<T> {
  const { stdout, stderr, exit } = await run(sandbox, ['python3', '-c', source, ...args])
  if (!('exitCode' in exit) || exit.exitCode !== 0)
    throw new Error(`Python ended with ${JSON.stringify(exit)}: ${stderr}`)
  return JSON.parse(stdout)
}

/** Processes of this host that descend from one of them. */
export async function descendants(ancestor: number): Promise<number[]> {
  const parents = new Map<number, number>()
  for (const pid of (await readdir('/proc')).map(Number).filter(Boolean)) {
    const stat = await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => '') // It has ended meanwhile
    const parent = /.*\) \S (\d+)/.exec(stat)?.[1]
    if (parent) parents.set(pid, Number(parent))
  }
  const of = (pid: number): number[] =>
    [...parents].filter(([, parent]) => parent === pid).flatMap(([child]) => [child, ...of(child)])
  return of(ancestor)
}

/** Processes of this test's sandboxes: all that it has started but the egress process. */
export async function sandboxProcesses(): Promise<number[]> {
  const pids = await descendants(process.pid)
  // It may have ended meanwhile
  const commands = await Promise.all(pids.map((pid) => readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '')))
  return pids.filter((_, index) => !commands[index]?.includes('egress/proxy/main.ts'))
}
