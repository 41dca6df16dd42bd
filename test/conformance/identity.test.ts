import { readFile, readlink } from 'node:fs/promises'
import { describe, expect, test } from 'vitest'
import { drivers } from './drivers.ts'
import { openSuite, python, run, sandboxProcesses } from './suite.ts'

describe.each(Object.entries(drivers))('%s: who a sandbox is', { timeout: 30_000 }, (_, underTest) => {
  // No slot is ready, so that all that descends from here is of a sandbox.
  const suite = openSuite(underTest, { ready: 0 })

  /** Each outside id that a process of a sandbox runs under now, by kind. */
  async function outsideIds(kind: 'Uid' | 'Gid'): Promise<number[]> {
    const pids = await sandboxProcesses()
    const lines = await Promise.all(pids.map((pid) => readFile(`/proc/${pid}/status`, 'utf8')))
    return lines
      .flatMap((status) => new RegExp(`^${kind}:(.*)$`, 'm').exec(status)?.[1]?.trim().split('\t') ?? [])
      .map(Number)
  }

  test('root inside is an unprivileged id outside, and so is everybody else inside', async () => {
    const sandbox = await suite.start()
    const script = 'sleep 60 & setpriv --reuid 33 --regid 33 --clear-groups sleep 60 & echo $(id -u); wait'
    const program = sandbox.exec({ argv: ['/bin/sh', '-c', script], env: {}, cwd: '/' })
    await program.stdout[Symbol.asyncIterator]().next()
    const { uid, gid, count } = await underTest.ids()
    // On a busy machine the change of ids may come after the line that was read.
    if (underTest.sharesKernel) await expect.poll(() => outsideIds('Uid')).toContain(uid + 33)
    const uids = await outsideIds('Uid')
    const gids = await outsideIds('Gid')
    expect(uids.length).toBeGreaterThan(8)
    expect(uids.filter((id) => id < uid || id >= uid + count)).toEqual([])
    expect(gids.filter((id) => id < gid || id >= gid + count)).toEqual([])
    expect(uids).not.toContain(0)
  })

  test('a program holds no descriptor but its own three', async () => {
    const sandbox = await suite.start()
    const source =
      'import json,os\nprint(json.dumps([d for d in os.listdir("/proc/self/fd") if os.path.exists("/proc/self/fd/"+d)]))'
    expect(await python(sandbox, source)).toEqual(['0', '1', '2'])
    const { stdout } = await run(sandbox, 'for fd in /proc/[0-9]*/fd/*; do readlink $fd; done')
    expect(
      stdout
        .split('\n')
        .filter((link) => /^\/(?!dev\/null|proc)|^(net|user|mnt|anon_inode:(?!\[(signalfd|event)))/.test(link)),
    ).toEqual([])
  })

  test('process 1 holds nothing of the host either', async () => {
    await suite.start()
    const pids = await sandboxProcesses()
    const links = await Promise.all(pids.map((pid) => descriptors(pid)))
    const kinds = links.flat().map((link) => link.replace(/[:[].*/, ''))
    expect(new Set(kinds).difference(new Set(['/dev/null', 'socket', 'pipe', 'anon_inode']))).toEqual(new Set())
  })

  test('neither mounts, command lines nor environments name anything of the host', async () => {
    const sandbox = await suite.start()
    const { stdout, exit } = await run(
      sandbox,
      'cat /proc/*/mountinfo /proc/*/cmdline /proc/self/environ /proc/self/cgroup',
    )
    expect(exit).toEqual({ exitCode: 0 })
    expect(stdout).toContain('overlay')
    expect(stdout).not.toContain(suite.dataDir)
    expect(stdout).not.toContain(suite.instance)
    expect(stdout).not.toContain('paws-conformance')
    expect(stdout).not.toContain(process.cwd())
  })

  test('the environment is the usual one, and nothing of the worker', async () => {
    process.env.PAWS_TEST_CANARY = 'canary'
    const sandbox = await suite.start({ hostname: 'a-name' })
    const { stdout } = await run(sandbox, ['env'], { env: { GIVEN: 'this' } })
    expect(stdout.trim().split('\n').sort()).toEqual([
      'GIVEN=this',
      'HOME=/root',
      'LANG=C.UTF-8',
      'PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin',
    ])
    expect(
      await run(sandbox, 'hostname; pwd; stat -c "%a %n" /tmp /workspace /output; grep -c a-name /etc/hosts'),
    ).toMatchObject({
      stdout: 'a-name\n/workspace\n1777 /tmp\n755 /workspace\n755 /output\n1\n',
    })
  })

  test('a file of the host cannot be seen, and the kernel not be tuned', async () => {
    const sandbox = await suite.start()
    const { stdout } = await run(
      sandbox,
      `ls -d ${import.meta.dirname} ${suite.dataDir} /root/.* /home/* 2>/dev/null; true`,
    )
    expect(stdout.split('\n').filter((line) => !/^(\/root\/\.(\.|bashrc|profile)?)?$/.test(line))).toEqual([])
    const writes =
      '/proc/sys/kernel/hostname /proc/sys/kernel/core_pattern /proc/sys/vm/drop_caches /proc/sys/net/ipv4/ip_forward /proc/sysrq-trigger'
    const tried = await run(sandbox, `for f in ${writes}; do echo 1 2>/dev/null > $f && echo $f; done; true`)
    expect(tried.stdout).toBe('')
  })

  test('two sandboxes share neither processes, files, sockets nor memory', async () => {
    const [one, other] = await Promise.all([suite.start(), suite.start()])
    const serve = `import socket,time
a = socket.socket(socket.AF_UNIX); a.bind("\\0meet"); a.listen()
b = socket.socket(); b.bind(("0.0.0.0", 7777)); b.listen()
open("/tmp/mark", "w").write("mine"); open("/dev/shm/mark", "w").write("mine")
print("ready", flush=True); time.sleep(60)`
    const server = one.exec({ argv: ['python3', '-c', serve], env: {}, cwd: '/' })
    await server.stdout[Symbol.asyncIterator]().next()
    const visit = `import json,os,socket
def reach(family, address):
    try: socket.socket(family).connect(address)
    except OSError as e: return e.errno
    return 0
print(json.dumps([reach(socket.AF_UNIX, "\\0meet"), reach(socket.AF_INET, ("127.0.0.1", 7777)), reach(socket.AF_INET, ("10.0.0.1", 7777)),
  os.path.exists("/tmp/mark"), os.path.exists("/dev/shm/mark"), sum(p.isdigit() for p in os.listdir("/proc"))]))`
    expect(await python(other, visit)).toEqual([111, 111, 111, false, false, 2])
    expect(await python(one, visit)).toEqual([0, 0, 0, true, true, 3])
  })
})

async function descriptors(pid: number): Promise<string[]> {
  const numbers = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]
  const links = await Promise.all(
    // Only root may look at some; a number may be free.
    numbers.map((number) => readlink(`/proc/${pid}/fd/${number}`).catch(() => undefined)),
  )
  return links.filter((link) => link !== undefined)
}
