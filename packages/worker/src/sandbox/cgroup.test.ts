import { spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { access, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, describe, expect, test } from 'vitest'
import { openCgroups } from './cgroup.ts'

const name = () => `paws-test-${randomBytes(4).toString('hex')}`

describe('on this host', () => {
  test('a group takes a process in, counts it, and kills it when it is removed', async () => {
    const cgroups = await openCgroups()
    const group = await cgroups.create(name())
    await group.limit({ vcpus: 0.5, memoryMB: 64, pids: 10 })
    const child = spawn('sleep', ['60'])
    await Promise.all(group.directories.map((folder) => writeFile(join(folder, 'cgroup.procs'), `${child.pid}`)))
    expect(await group.oomKills()).toBe(0)
    const ended = once(child, 'exit')
    await group.remove()
    // Without a group of its own nobody has killed it.
    if (group.directories.length === 0) child.kill('SIGKILL')
    expect(await ended).toEqual([null, 'SIGKILL'])
    for (const folder of group.directories) await expect(access(folder)).rejects.toMatchObject({ code: 'ENOENT' })
  })

  test('what is left of an earlier worker is found by its name', async () => {
    const cgroups = await openCgroups()
    const left = await cgroups.create(name())
    const names = await cgroups.list('paws-test-')
    expect(names.length > 0).toBe(left.directories.length > 0)
    await left.remove()
    await left.remove()
  })
})

describe('a host with cgroup v2, as the kernel would describe it', () => {
  const root = process.getuid?.() === 0
  let folder: string
  afterEach(() => rm(folder, { recursive: true }))

  async function host({ offered = 'cpuset cpu io memory pids', delegated = true, path = '/a.scope' }) {
    folder = await mkdtemp(join(tmpdir(), 'paws-cgroup-'))
    const scope = join(folder, 'a.scope')
    for (const group of [folder, scope]) {
      await mkdir(group, { recursive: true })
      await writeFile(join(group, 'cgroup.controllers'), `${offered}\n`)
    }
    await writeFile(join(folder, 'mountinfo'), `30 23 0:26 / ${folder} rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n`)
    await writeFile(join(folder, 'cgroup'), `0::${path}\n`)
    const asked: string[] = []
    const isDelegated = async (group: string) => {
      asked.push(group)
      return delegated
    }
    return { scope, asked, cgroups: await openCgroups({ self: folder, isDelegated }) }
  }
  const controls = (group: string) => readFile(join(group, 'cgroup.subtree_control'), 'utf8')

  test('hands the controllers on inside the delegated group, and writes limits in its words', async () => {
    const { scope, cgroups } = await host({})
    expect(cgroups.limitations).toEqual([])
    expect(await controls(scope)).toBe('+cpu +memory +pids')
    expect(await controls(join(scope, 'paws-sandboxes'))).toBe('+cpu +memory +pids')
    const group = await cgroups.create('paws-a')
    const directory = join(scope, 'paws-sandboxes/paws-a')
    expect(group.directories).toEqual([directory])
    expect(await cgroups.list('paws-')).toEqual(['paws-a'])
    for (const file of ['cpu.max', 'memory.max', 'memory.swap.max', 'pids.max'])
      await writeFile(join(directory, file), '')
    await group.limit({ vcpus: 1.5, memoryMB: 512, pids: 1024 })
    const read = (file: string) => readFile(join(directory, file), 'utf8')
    expect(await read('cpu.max')).toBe('150000 100000')
    expect(await read('memory.max')).toBe(`${512 * 1024 * 1024}`)
    expect(await read('memory.swap.max')).toBe('0')
    expect(await read('pids.max')).toBe('1024')
    await writeFile(join(directory, 'memory.events'), 'low 0\nhigh 0\nmax 7\noom 2\noom_kill 2\n')
    expect(await group.oomKills()).toBe(2)
  })

  test('a kernel that does not count swap has no limit of it, and that stops nothing', async () => {
    const { scope, cgroups } = await host({ offered: 'memory' })
    const group = await cgroups.create('paws-a')
    await writeFile(join(scope, 'paws-sandboxes/paws-a/memory.max'), '')
    await group.limit({ vcpus: 1, memoryMB: 512, pids: 1024 })
  })

  test('the leaf that an earlier look moved this process to is not taken for the delegated group', async () => {
    const { scope, asked, cgroups } = await host({ path: '/a.scope/paws-worker' })
    expect(asked).toEqual(['/a.scope'])
    expect(cgroups.open('paws-a').directories).toEqual([join(scope, 'paws-sandboxes/paws-a')])
  })

  test('in a group that is not delegated nothing is touched: root takes the top, others have no limits', async () => {
    const { scope, cgroups } = await host({ delegated: false })
    await expect(controls(scope)).rejects.toMatchObject({ code: 'ENOENT' })
    expect(cgroups.open('paws-a').directories).toEqual(root ? [join(folder, 'paws-sandboxes/paws-a')] : [])
    expect(cgroups.limitations).toHaveLength(root ? 0 : 2)
    if (!root) expect(cgroups.limitations[0]).toContain('"systemd-run --user --scope -p Delegate=yes"')
  })

  test('says in whole sentences what it can not hold sandboxes to', async () => {
    const { cgroups } = await host({ offered: 'pids' })
    expect(cgroups.limitations).toHaveLength(2)
    expect(cgroups.limitations[0]).toMatch(
      /^CPU limits of sandboxes are not enforced: no cgroup .* controller cpu\b.*\.$/,
    )
    if (!root) expect(cgroups.limitations[0]).toContain('Delegate=cpu memory pids')
    expect(cgroups.limitations[1]).toMatch(/^Memory limits/)
  })
})
