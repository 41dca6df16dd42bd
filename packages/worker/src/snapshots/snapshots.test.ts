import { type ChildProcess, fork } from 'node:child_process'
import { once } from 'node:events'
import { createReadStream } from 'node:fs'
import { chmod, cp, lstat, mkdtemp, open, readdir, readFile, readlink, rename, stat, writeFile } from 'node:fs/promises'
import { hostname, tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { pino } from 'pino'
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from 'vitest'
import { openIdMap } from '../sandbox/id-map.ts'
import { openToRange, removeTree, runInRange } from '../sandbox/id-range.ts'
import { confined } from './confined.ts'
import { buildSnapshot, type FetchFile, type HeldSnapshot, openSnapshotStore, type SnapshotStore } from './index.ts'
import { minimalBuild, minimalImage, templatesDir } from './testing/minimal-image.ts'

const log = pino({ level: 'silent' })
let minimal: HeldSnapshot
beforeAll(async () => {
  minimal = await minimalImage()
}, 300_000)

let dataDir: string
const stores: SnapshotStore[] = []
beforeEach(async () => {
  dataDir = await mkdtemp(join(tmpdir(), 'paws-store-'))
  await chmod(dataDir, 0o711)
})
afterEach(async () => {
  for (const store of stores.splice(0)) await store.close()
  const map = await openIdMap()
  const snapshots = join(dataDir, 'snapshots')
  // A test without a store of its own has no such folder.
  for (const name of await readdir(snapshots).catch(() => [])) await removeTree(map, join(snapshots, name))
  await removeTree(map, dataDir)
})

const fileOf = (file: string) => join(minimal.squashfs, '..', file)
const fetchGood: FetchFile = async (_, file) => createReadStream(fileOf(file))

async function openStore(fetchFile: FetchFile = fetchGood): Promise<SnapshotStore> {
  const store = await openSnapshotStore({ dataDir, fetchFile, log })
  stores.push(store)
  return store
}

/** What a file of the image is, read as the sandboxes' root: an ordinary worker may not pass all of its folders. */
async function inside(script: string): Promise<string[]> {
  const lines: string[] = []
  const map = await openIdMap()
  await runInRange(map, ['sh', '-c', script], { cwd: minimal.imageDir, onLine: (line) => lines.push(line) })
  return lines
}

test('its files belong to the sandboxes ids, all of them', async () => {
  const { uid, gid, count } = await openIdMap()
  const root = await lstat(minimal.imageDir)
  expect([root.uid, root.gid]).toEqual([uid, gid])
  expect(await inside(`find . -printf '%U %G\\n' | sort -u | awk '$1 >= ${count} || $2 >= ${count}'`)).toEqual([])
  expect(await inside(`find . -xdev -user 0 -name bash -path './usr/bin/*'`)).toEqual(['./usr/bin/bash'])
  // Nobody who isn't the worker lists or changes what lies above.
  for (let above = join(minimal.imageDir, '..'); above !== tmpdir(); above = join(above, '..')) {
    const { mode, uid: owner } = await stat(above)
    expect([owner, mode & 0o777]).toEqual([process.getuid?.(), 0o711])
  }
})

test('it has what scripts expect', async () => {
  const programs = 'bash python3 git curl jq ip ps apt-get date'
  expect(await inside(`for p in ${programs}; do test -x usr/bin/$p || test -x usr/sbin/$p || echo $p; done`)).toEqual(
    [],
  )
  expect(
    await inside('chroot . bash -c "LC_ALL=C.UTF-8 locale charmap 2>&1; TZ=Europe/Berlin date -d @0 +%H%Z"'),
  ).toEqual([...['UTF-8', '01CET']])
  expect(await inside('chroot . python3 -c "import json, ssl, sqlite3; print(1)"')).toEqual(['1'])
  expect(await inside('ls -d workspace output etc/ssl/certs/ca-certificates.crt')).toHaveLength(3)
  expect(await inside('stat -c %a tmp')).toEqual(['1777'])
  expect(Object.keys(minimal.manifest.packages)).toEqual(expect.arrayContaining(['bash', 'git', 'iproute2', 'jq']))
  expect(minimal.manifest.env.LANG).toBe('C.UTF-8')
})

test('nothing of the host is in it', async () => {
  for (const file of ['etc/machine-id', 'etc/resolv.conf']) expect(await inside(`cat ${file}`)).toEqual([])
  expect(
    await inside('ls -A etc/hostname var/lib/dbus/machine-id 2> /dev/null; ls -A dev run var/lib/apt/lists || true'),
  ).toEqual(expect.not.arrayContaining([expect.stringMatching(/hostname|machine-id|debian/)]))
  expect(
    await inside('ls -A etc/apt/sources.list.d etc/apt/auth.conf.d; ls etc/apt/sources.list 2> /dev/null || true'),
  ).toEqual([...['etc/apt/auth.conf.d:', '', 'etc/apt/sources.list.d:', 'debian.sources']])
  expect(await inside('grep -rniE "proxy|://[^/ ]*@" etc/apt || true')).toEqual([])
  const hostId = (await readFile('/etc/machine-id', 'utf8').catch(() => '')).trim()
  const names = [hostId, hostname(), '.staging', 'build.sources'].filter((name) => name.length > 5)
  // In configuration, state and logs; programs may hold any words.
  for (const name of names) expect(await inside(`grep -rlF -- '${name}' etc var root home tmp run || true`)).toEqual([])
  expect(
    await inside('find var/log var/cache/apt etc -name "*-" -o -path "var/log/*" -type f -o -name "*.deb"'),
  ).toEqual([])
})

test('callers at the same time share one fetching and unpacking', async () => {
  const fetched: string[] = []
  const store = await openStore((digest, file, signal) => {
    fetched.push(file)
    return fetchGood(digest, file, signal)
  })
  const helds = await Promise.all([1, 2, 3].map(() => store.ensure(minimal.digest)))
  expect(fetched).toEqual(['manifest.json', 'rootfs.squashfs'])
  expect(new Set(helds).size).toBe(1)
  expect(await store.held()).toEqual([minimal.digest])
  const { uid } = await openIdMap()
  expect((await lstat(join(dataDir, 'snapshots', minimal.digest.slice(7), 'rootfs/etc'))).uid).toBe(uid)
  expect(await readdir(join(dataDir, 'snapshots/.staging'))).toEqual([])
  // The next process finds it.
  const again = await openStore(async () => {
    throw new Error('must not be fetched')
  })
  expect(await again.ensure(minimal.digest)).toEqual(helds[0])
})

/** Makes a file in which one byte, at that share of its length, is another. */
async function damage(file: string, at: number): Promise<string> {
  const copy = join(dataDir, `damaged-${Math.random()}`)
  await cp(file, copy)
  const handle = await open(copy, 'r+')
  const { size } = await handle.stat()
  const byte = Buffer.alloc(1)
  await handle.read(byte, 0, 1, Math.floor(size * at))
  byte[0] = (byte[0] ?? 0) ^ 1
  await handle.write(byte, 0, 1, Math.floor(size * at))
  await handle.close()
  return copy
}

test('one wrong byte is refused with the reason, after a second try', async () => {
  const bad = { 'rootfs.squashfs': await damage(fileOf('rootfs.squashfs'), 0.7) }
  const fetched: string[] = []
  const store = await openStore(async (_, file) => {
    fetched.push(file)
    return createReadStream(file === 'rootfs.squashfs' ? bad[file] : fileOf(file))
  })
  const { sha256 } = minimal.manifest.files['rootfs.squashfs']
  await expect(store.ensure(minimal.digest)).rejects.toMatchObject({
    name: 'SnapshotCorrupt',
    message: expect.stringMatching(`rootfs.squashfs has SHA-256 [0-9a-f]{64}, its manifest says ${sha256}`),
  })
  expect(fetched.filter((file) => file === 'rootfs.squashfs')).toHaveLength(2)
  expect(await store.held()).toEqual([])
  expect(await readdir(join(dataDir, 'snapshots/.staging'))).toEqual([])
})

test('damage on the way is mended by the second try; a wrong manifest, a short and a long file are named', async () => {
  const manifest = await damage(fileOf('manifest.json'), 0.5)
  let first = true
  const mended = await openStore(async (_, file) => {
    const wrong = first && file === 'manifest.json'
    first = false
    return createReadStream(wrong ? manifest : fileOf(file))
  })
  expect((await mended.ensure(minimal.digest)).digest).toBe(minimal.digest)
  await mended.close()
  await removeTree(mended.ids, join(dataDir, 'snapshots', minimal.digest.slice(7)))

  const always = async (fetchFile: FetchFile) => (await openStore(fetchFile)).ensure(minimal.digest)
  const withSquashfs = (content: () => ReturnType<typeof createReadStream>) =>
    always(async (_, file) => (file === 'rootfs.squashfs' ? content() : createReadStream(fileOf(file))))
  await expect(always(async () => createReadStream(manifest))).rejects.toThrow('its manifest has the digest sha256:')
  const whole = fileOf('rootfs.squashfs')
  await expect(withSquashfs(() => createReadStream(whole, { end: 999 }))).rejects.toThrow('ended after 1000 of')
  const long = join(dataDir, 'long')
  await cp(whole, long)
  await writeFile(long, 'more', { flag: 'a' })
  await expect(withSquashfs(() => createReadStream(long))).rejects.toThrow('rootfs.squashfs is longer than')
})

test('what lies here damaged is found when it is first opened, and fetched again', async () => {
  await (await openStore()).ensure(minimal.digest)
  const at = join(dataDir, 'snapshots', minimal.digest.slice(7), 'rootfs.squashfs')
  await rename(await damage(at, 0.3), at)
  const fetched: string[] = []
  const store = await openStore((digest, file, signal) => {
    fetched.push(file)
    return fetchGood(digest, file, signal)
  })
  await store.ensure(minimal.digest)
  expect(fetched).toEqual(['manifest.json', 'rootfs.squashfs'])
  expect((await stat(at)).size).toBe((await stat(fileOf('rootfs.squashfs'))).size)
})

test('what is no digest is never a path', async () => {
  const store = await openStore()
  for (const digest of ['../../etc', 'sha256:..', `sha256:${'A'.repeat(64)}`, '']) {
    await expect(store.ensure(digest)).rejects.toThrow('is no digest of a snapshot')
  }
})

const children: ChildProcess[] = []
afterAll(() => {
  for (const child of children) child.kill('SIGKILL')
})

/** Pids of processes whose working directory is in a folder. */
async function processesIn(directory: string): Promise<string[]> {
  const pids = (await readdir('/proc')).filter((name) => /^\d+$/.test(name))
  const found = await Promise.all(
    pids.map(async (pid) => {
      // A process may end meanwhile, and another user's can't be read.
      const cwd = await readlink(`/proc/${pid}/cwd`).catch(() => '')
      return cwd.startsWith(directory) ? [pid] : []
    }),
  )
  return found.flat()
}

test('a build that is killed halfway leaves no process, and nothing on disk after the next start', async () => {
  const builder = fork(new URL('./testing/build-forever.ts', import.meta.url), [dataDir, templatesDir], {
    stdio: ['ignore', 'ignore', 'inherit', 'ipc'],
  })
  children.push(builder)
  await new Promise((resolve) => builder.on('message', (line) => String(line).includes('extracting') && resolve(line)))
  const staging = join(dataDir, 'snapshots/.staging')
  const [left] = await readdir(staging)
  if (!left) throw new Error('Nothing is being built')
  // A live one's is not touched by another worker that starts beside it.
  await openStore()
  expect(await readdir(staging)).toEqual([left])
  expect(await processesIn(staging)).not.toEqual([])
  builder.kill('SIGKILL')
  await once(builder, 'exit')
  for (let tries = 0; (await processesIn(staging)).length > 0; tries++) {
    if (tries > 100) throw new Error(`Left running: ${await processesIn(staging)}`)
    await sleep(50)
  }
  await openStore()
  expect(await readdir(staging)).toEqual([])
  expect((await readFile('/proc/mounts', 'utf8')).includes(dataDir)).toBe(false)
})

test('a build that is aborted or fails says why and leaves nothing', async () => {
  const store = await openStore()
  const lines: string[] = []
  const options = { ...minimalBuild, store }
  const stop = new AbortController()
  const aborted = buildSnapshot({
    ...options,
    signal: stop.signal,
    onLine: (line) => {
      lines.push(line)
      if (/downloading/.test(line)) stop.abort(new Error('enough'))
    },
  })
  await expect(aborted).rejects.toThrow('enough')
  const order = { ...options.order, template: 'nod' }
  await expect(buildSnapshot({ ...options, order })).rejects.toThrow(
    'The template "nod" is not complete on this worker',
  )
  const wrong = join(dataDir, 'wrong')
  await cp(join(templatesDir, 'minimal'), join(wrong, 'minimal'), { recursive: true })
  const manifest = JSON.parse(await readFile(join(wrong, 'minimal/manifest.json'), 'utf8'))
  await writeFile(
    join(wrong, 'minimal/manifest.json'),
    JSON.stringify({ ...manifest, from: { ...manifest.from, packages: ['no-such-package-here'] } }),
  )
  await expect(buildSnapshot({ ...options, templatesDir: wrong })).rejects.toThrow(
    /Unable to locate package no-such-package-here/,
  )
  expect(await readdir(join(dataDir, 'snapshots/.staging'))).toEqual([])
  expect(await store.held()).toEqual([])
}, 120_000)

test('two builds are the same to the byte, and progress goes from 0 towards 1', async () => {
  const store = await openStore()
  const seen: number[] = []
  const steps = new Set<string>()
  const onProgress = ({ progress, step }: { progress: number; step: string }) => {
    seen.push(progress)
    steps.add(step)
  }
  let lines = 0
  const onLine = () => {
    lines++
  }
  const built = await buildSnapshot({ ...minimalBuild, store, onProgress, onLine })
  expect(seen).toEqual(seen.toSorted((a, b) => a - b))
  expect(seen[0]).toBe(0)
  expect(seen.at(-1)).toBe(0.95)
  expect(new Set(seen).size).toBeGreaterThan(100)
  expect([...steps]).toContain('Installing packages')
  expect(lines).toBeGreaterThan(500)
  expect(await store.held()).toEqual([built.digest])
  // The mirror may have newer packages than when the image of this machine was built.
  if (JSON.stringify(built.manifest.packages) === JSON.stringify(minimal.manifest.packages)) {
    expect(built.digest).toBe(minimal.digest)
  }
}, 300_000)

test('a program in the id range is nobody outside, and none of its children outlives it', async () => {
  const { uid } = await openIdMap()
  const map = await openIdMap()
  const work = join(dataDir, 'snapshots')
  await (await openStore()).close()
  const stop = new AbortController()
  const running = runInRange(map, ['sh', '-c', 'setsid sleep 1234 & sleep 1235'], { cwd: work, signal: stop.signal })
  const mine: string[] = []
  for (let tries = 0; mine.length < 3 && tries < 100; tries++) {
    await sleep(50)
    mine.splice(0, mine.length, ...(await processesIn(work)))
  }
  const owners = await Promise.all(mine.map(async (pid) => (await stat(`/proc/${pid}`)).uid))
  expect(owners).toContain(uid)
  stop.abort(new Error('stopped'))
  await expect(running).rejects.toThrow('stopped')
  for (let tries = 0; (await processesIn(work)).length > 0; tries++) {
    if (tries > 100) throw new Error('children were left')
    await sleep(20)
  }
  await expect(runInRange(map, ['sh', '-c', 'echo because >&2; exit 3'], { cwd: work })).rejects.toThrow(
    'sh failed (3): because',
  )
  await expect(runInRange(map, ['no-such-program'], { cwd: work })).rejects.toThrow(/no-such-program/)
})

test('what reads a stranger’s image sees nothing else of this machine', async () => {
  const map = await openIdMap()
  const cwd = await mkdtemp(join(dataDir, 'confined-'))
  await openToRange(cwd)
  const lines: string[] = []
  const script =
    'pwd; ls -A /; ls /dev; touch made; touch /usr/made || cat /etc/passwd /proc/version; ls .. > /dev/null'
  const tcp = 'import socket; print(socket.socket().connect_ex(("127.0.0.1", 22)), len(socket.if_nameindex()))'
  const command = ['sh', '-c', `${script}; exec python3 -c '${tcp}'`]
  await runInRange(map, confined(command), { cwd, onLine: (line) => lines.push(line) })
  expect(lines.filter((line) => !/No such file|Read-only file system|Permission denied/.test(line))).toEqual([
    ...['/work', 'bin', 'dev', 'lib', 'lib64', 'usr', 'work', 'null', '111 1'],
  ])
  expect(await readdir(cwd)).toEqual(['made'])
  const failing = runInRange(map, confined(['unsquashfs', '/etc/passwd']), { cwd, name: 'unsquashfs' })
  await expect(failing).rejects.toThrow(/^unsquashfs failed \(1\): .*No such file/)
})
