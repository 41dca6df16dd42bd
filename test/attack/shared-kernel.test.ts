import { execFileSync } from 'node:child_process'
import { watch } from 'node:fs'
import { tmpdir } from 'node:os'
import { describe, expect, test } from 'vitest'
import { drivers } from '../conformance/drivers.ts'
import { openSuite, python } from '../conformance/suite.ts'

const EMFILE = 24
const EAGAIN = 11
const ENOSPC = 28
const ENOSYS = 38

/** Makes inotify instances until it is refused, then holds them. */
const hoardWatchers = `import ctypes,json,resource,time
resource.setrlimit(resource.RLIMIT_NOFILE, (8192, 8192))
libc = ctypes.CDLL(None, use_errno=True)
made = 0
while libc.inotify_init1(0) >= 0: made += 1
print(json.dumps([made, ctypes.get_errno()]), flush=True)
time.sleep(60)`

/** Queues real-time signals that nobody takes until it is refused, then holds them. */
const hoardSignals = `import ctypes,json,os,signal,time
libc = ctypes.CDLL(None, use_errno=True)
signal.pthread_sigmask(signal.SIG_BLOCK, [40])
made = 0
while libc.sigqueue(os.getpid(), 40, None) == 0: made += 1
print(json.dumps([made, ctypes.get_errno()]), flush=True)
time.sleep(60)`

/** Opens terminals until it is refused, then holds them. */
const hoardTerminals = `import json,os,resource,time
resource.setrlimit(resource.RLIMIT_NOFILE, (8192, 8192))
open = []
try:
  while True: open.append(os.open('/dev/ptmx', os.O_RDWR | os.O_NOCTTY))
except OSError as e: print(json.dumps([len(open), e.errno]), flush=True)
time.sleep(60)`

const once = {
  watchers: 'import ctypes,json; print(json.dumps(ctypes.CDLL(None).inotify_init1(0) >= 0))',
  signals: `import ctypes,json,os,signal
signal.pthread_sigmask(signal.SIG_BLOCK, [40])
print(json.dumps(ctypes.CDLL(None).sigqueue(os.getpid(), 40, None) == 0))`,
}

describe.each(Object.entries(drivers))('%s: what the kernel counts for each user', { timeout: 60_000 }, (_, driver) => {
  const suite = openSuite(driver)

  // An ordinary user can own a sandbox's namespace only itself: docs/limits.md says what follows from that.
  test.runIf(process.getuid?.() === 0).each([
    { kind: 'watchers', hoard: hoardWatchers, refused: EMFILE },
    { kind: 'signals', hoard: hoardSignals, refused: EAGAIN },
  ] as const)('one sandbox has used up its $kind, neither the host nor another sandbox', async (attack) => {
    const [greedy, other] = await Promise.all([suite.start(), suite.start()])
    const program = greedy.exec({ argv: ['python3', '-c', attack.hoard], env: {}, cwd: '/' })
    const [made, errno] = JSON.parse(String((await program.stdout[Symbol.asyncIterator]().next()).value))
    expect(errno).toBe(attack.refused)
    expect(made).toBeGreaterThan(10)
    expect(await python(greedy, once[attack.kind])).toBe(false)

    expect(await python(other, once[attack.kind])).toBe(true)
    if (attack.kind === 'watchers') expect(() => watch(tmpdir()).close()).not.toThrow()
  })

  test('one sandbox gets some of the host’s terminals, not all', async () => {
    const [greedy, other] = await Promise.all([suite.start(), suite.start()])
    const program = greedy.exec({ argv: ['python3', '-c', hoardTerminals], env: {}, cwd: '/' })
    const [made, errno] = JSON.parse(String((await program.stdout[Symbol.asyncIterator]().next()).value))
    expect(errno).toBe(ENOSPC)
    expect(made).toBeGreaterThan(30)
    expect(made).toBeLessThanOrEqual(128)
    const open = 'import json,os; print(json.dumps(os.isatty(os.open("/dev/ptmx", os.O_RDWR))))'
    expect(await python(other, open)).toBe(true)
  })

  test.runIf(driver.sharesKernel)(
    'no sandbox takes contexts of asynchronous I/O, of which the host has few',
    async () => {
      const setUp = `import ctypes,json,platform
libc = ctypes.CDLL(None, use_errno=True)
number = 206 if platform.machine() == 'x86_64' else 0
context = ctypes.c_ulong(0)
print(json.dumps([libc.syscall(number, 1, ctypes.byref(context)), ctypes.get_errno()]))`
      expect(await python(await suite.start(), setUp)).toEqual([-1, ENOSYS])
      expect(JSON.parse(execFileSync('python3', ['-c', setUp], { encoding: 'utf8' }))).toEqual([0, 0])
    },
  )
})
