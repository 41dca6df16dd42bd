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
  let folder: string
  afterEach(() => rm(folder, { recursive: true }))

  async function host(controllers: string) {
    folder = await mkdtemp(join(tmpdir(), 'paws-cgroup-'))
    const scope = process.getuid?.() === 0 ? folder : join(folder, 'a.scope')
    await mkdir(scope, { recursive: true })
    await writeFile(join(folder, 'mountinfo'), `30 23 0:26 / ${folder} rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n`)
    await writeFile(join(folder, 'cgroup'), '0::/a.scope\n')
    await writeFile(join(scope, 'cgroup.controllers'), `${controllers}\n`)
    return { scope, cgroups: await openCgroups(folder) }
  }

  test('hands the controllers on, and writes limits in its words', async () => {
    const { scope, cgroups } = await host('cpuset cpu io memory pids')
    expect(cgroups.limitations).toEqual([])
    expect(await readFile(join(scope, 'cgroup.subtree_control'), 'utf8')).toBe('+cpu +memory +pids')
    const group = await cgroups.create('paws-a')
    expect(group.directories).toEqual([join(scope, 'paws-a')])
    await group.limit({ vcpus: 1.5, memoryMB: 512, pids: 1024 })
    const read = (file: string) => readFile(join(scope, 'paws-a', file), 'utf8')
    expect(await read('cpu.max')).toBe('150000 100000')
    expect(await read('memory.max')).toBe(`${512 * 1024 * 1024}`)
    expect(await read('memory.swap.max')).toBe('0')
    expect(await read('pids.max')).toBe('1024')
    await writeFile(join(scope, 'paws-a', 'memory.events'), 'low 0\nhigh 0\nmax 7\noom 2\noom_kill 2\n')
    expect(await group.oomKills()).toBe(2)
  })

  test('says in whole sentences what it can not hold sandboxes to', async () => {
    const { cgroups } = await host('pids')
    expect(cgroups.limitations).toHaveLength(2)
    expect(cgroups.limitations[0]).toMatch(/^CPU limits of sandboxes are not enforced: .*delegated cpu cgroup.*\.$/)
    expect(cgroups.limitations[1]).toMatch(/^Memory limits/)
  })
})
