import { execFile, spawn } from 'node:child_process'
import { chmod, mkdtemp, readdir, readFile, readlink, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'

const run = promisify(execFile)
const root = join(import.meta.dirname, '../..')

/** A clone of what is committed, as a newcomer has it: nothing installed, nothing compiled. */
export async function cleanClone(folder: string): Promise<string> {
  const clone = join(folder, 'paws')
  await run('git', ['clone', '--quiet', '--no-hardlinks', root, clone])
  return clone
}

export interface Up {
  pid: number
  url: string
  apiKey: string
  /** From the command to the line that says it is ready */
  readyMs: number
  stdout(): string
  /** Its steps with their times */
  stderr(): string
  /** Like Ctrl-C; resolves with its exit code */
  interrupt(): Promise<number | string>
  kill(): Promise<number | string>
}

export interface UpOptions {
  clone: string
  dataDir: string
  /** Settings beyond these, by their names in the environment */
  env?: Record<string, string>
}

/** `./paws up --json` on a free port, until it is ready. */
export async function startUp(options: UpOptions): Promise<Up> {
  const began = performance.now()
  const { child, stdout, stderr, ended } = spawnUp(options)
  const line = await Promise.race([
    new Promise<string>((resolve) => {
      child.stdout.on('data', () => stdout().includes('\n') && resolve(stdout()))
    }),
    ended.then((code) => {
      throw new Error(`./paws up ended with ${code} before it was ready:\n${stderr()}`)
    }),
  ])
  const { url, apiKey } = JSON.parse(line) as { url: string; apiKey: string }
  const end = (signal: NodeJS.Signals) => {
    child.kill(signal)
    return ended
  }
  return {
    pid: child.pid as number,
    readyMs: performance.now() - began,
    ...{ url, apiKey, stdout, stderr },
    interrupt: () => end('SIGINT'),
    kill: () => end('SIGKILL'),
  }
}

/**
 * What `./paws up` of this very tree starts, until it is closed. It lives in a folder of its own that goes with it, or
 * in the one given, which stays: its snapshot is then built only once.
 */
export async function startInstallation({ env, folder }: { env?: Record<string, string>; folder?: string } = {}) {
  const dataDir = folder ?? (await mkdtemp(join(tmpdir(), 'paws-installation-')))
  // As root, the database's own user must get through.
  if (!folder) await chmod(dataDir, 0o711)
  const up = await startUp({ clone: root, dataDir, env })
  return {
    ...up,
    dataDir,
    async close() {
      await up.interrupt()
      if (!folder) await rm(dataDir, { recursive: true, force: true })
    },
  }
}

/** For an `up` that is expected to refuse. */
export async function failingUp(
  options: UpOptions,
): Promise<{ code: number | string; stdout: string; stderr: string }> {
  const { stdout, stderr, ended } = spawnUp(options)
  const code = await ended
  return { code, stdout: stdout(), stderr: stderr() }
}

function spawnUp({ clone, dataDir, env: settings }: UpOptions) {
  const env: NodeJS.ProcessEnv = { ...process.env, PAWS_DATA: dataDir, PORT: '0' }
  // What belongs to the run of the tests is no newcomer's.
  for (const name of Object.keys(env))
    if (/^(VITEST|NODE_ENV|TEST|PAWS_(KEY|URL)|DATABASE_URL)/.test(name)) delete env[name]
  const child = spawn('./paws', ['up', '--json'], {
    cwd: clone,
    env: { ...env, ...settings },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  const seen = { stdout: '', stderr: '' }
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    seen.stdout += text
  })
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    seen.stderr += text
  })
  const ended = new Promise<number | string>((resolve) => {
    child.once('close', (code, signal) => resolve(code ?? signal ?? 'nothing'))
  })
  return { child, ended, stdout: () => seen.stdout, stderr: () => seen.stderr }
}

/** What a process and all that it has started hold on this machine. */
export interface Footprint {
  /** `pid:start time` of each */
  processes: Set<string>
  /** Network, mount and pid namespaces that aren't this test's own */
  namespaces: Set<string>
}

export async function footprintOf(pid: number): Promise<Footprint> {
  const all = await everyProcess()
  const wanted = new Set([pid])
  // Parents come before their children often, not always: repeated until nothing is added.
  for (let before = 0; before !== wanted.size; ) {
    before = wanted.size
    for (const each of all) if (wanted.has(each.parent)) wanted.add(each.pid)
  }
  const own = new Set(await namespacesOf(process.pid))
  const members = all.filter((each) => wanted.has(each.pid))
  const namespaces = (await Promise.all(members.map((each) => namespacesOf(each.pid)))).flat()
  return {
    processes: new Set(members.map(({ pid, startTime }) => `${pid}:${startTime}`)),
    namespaces: new Set(namespaces.filter((name) => !own.has(name))),
  }
}

/** What of a footprint is still there, and what else still bears the name of its data folder. */
export async function remains({ processes, namespaces }: Footprint, dataDir: string): Promise<string[]> {
  const all = await everyProcess()
  const kept = await Promise.all(all.map(async ({ pid }) => namespacesOf(pid)))
  const mounts = (await readFile('/proc/self/mountinfo', 'utf8')).split('\n').filter((line) => line.includes(dataDir))
  const loops = await Promise.all(
    (await readdir('/sys/block').catch(() => [])).map((name) =>
      readFile(`/sys/block/${name}/loop/backing_file`, 'utf8').catch(() => ''),
    ),
  )
  return [
    ...all.filter(({ pid, startTime }) => processes.has(`${pid}:${startTime}`)).map(({ pid }) => `process ${pid}`),
    ...new Set(kept.flat().filter((name) => namespaces.has(name))),
    ...mounts.map((line) => `mount ${line}`),
    ...loops.filter((file) => file.startsWith(dataDir)).map((file) => `loop device of ${file.trim()}`),
  ]
}

async function namespacesOf(pid: number): Promise<string[]> {
  const names = ['net', 'mnt', 'pid', 'user', 'ipc', 'uts', 'cgroup']
  return Promise.all(names.map((name) => readlink(`/proc/${pid}/ns/${name}`).catch(() => ''))).then((links) =>
    links.filter(Boolean),
  )
}

async function everyProcess(): Promise<{ pid: number; parent: number; startTime: string }[]> {
  const pids = (await readdir('/proc')).filter((name) => /^\d+$/.test(name))
  const found = await Promise.all(
    pids.map(async (name) => {
      const text = await readFile(`/proc/${name}/stat`, 'utf8').catch(() => '')
      const [state, parent, ...fields] = text.slice(text.lastIndexOf(')') + 2).split(' ')
      // A zombie holds nothing; when it is buried is its parent's affair.
      return text === '' || state === 'Z'
        ? []
        : [{ pid: Number(name), parent: Number(parent), startTime: fields[17] ?? '' }]
    }),
  )
  return found.flat()
}

/** Names of control groups anywhere that begin so. */
export async function controlGroups(prefix: string): Promise<string[]> {
  const { stdout } = await run('find', ['/sys/fs/cgroup', '-type', 'd', '-name', `${prefix}*`]).catch(() => ({
    stdout: '',
  }))
  return stdout.split('\n').filter(Boolean)
}
