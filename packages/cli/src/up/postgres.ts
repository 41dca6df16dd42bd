import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { existsSync } from 'node:fs'
import { chmod, chown, mkdir, readFile, readlink, rm, stat, writeFile } from 'node:fs/promises'
import { userInfo } from 'node:os'
import { dirname, join, resolve } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { promisify } from 'node:util'
import { type Binaries, locateBinaries } from './postgres-binaries.ts'

const run = promisify(execFile)

/** The system user that the server runs as when root starts it: PostgreSQL refuses to run as root. */
const systemUser = 'paws-postgres'
const role = 'paws'
const socketName = '.s.PGSQL.5432'
/** sun_path holds 108 bytes, the closing zero included. */
const maxSocketPath = 107

export interface PostgresOptions {
  /** The cluster's folder; made and filled if it is missing or empty. As root its parents must be traversable by others */
  dataDir: string
  /** Open descriptor that the server's log is written to; it is dropped without one */
  log?: number
  /** How long crash recovery may take, default two minutes */
  startTimeoutMs?: number
}

export interface Postgres {
  /** For `pg` and libpq alike. It names a unix socket, stays the same over restarts, and holds no secret */
  url: string
  pid: number
  /** Settles when the server has ended, wanted or not */
  exited: Promise<void>
  /** Fast shutdown: open transactions are rolled back, nothing that was committed is lost */
  stop(): Promise<void>
}

/**
 * Starts the real PostgreSQL server on a folder. It listens on a unix socket inside that folder only, and lets in this
 * user alone (peer authentication): no port to find or to guard, no password to leak, and two never meet.
 *
 * @throws when the folder can't be used, holds another major version, or already has a running server
 */
export async function startPostgres(options: PostgresOptions): Promise<Postgres> {
  const dataDir = resolve(options.dataDir)
  if (Buffer.byteLength(join(dataDir, socketName)) > maxSocketPath) {
    throw new Error(`${dataDir} is too long a path for PostgreSQL's socket. Choose one of at most 92 bytes.`)
  }
  const binaries = await locateBinaries()
  const asRoot = process.getuid?.() === 0
  await prepareFolder(dataDir, asRoot)
  await initialise(binaries, dataDir, asRoot)
  await removeStaleLock(binaries, dataDir)
  await writeAccess(dataDir)

  const child = spawn(...asServer(asRoot, [binaries.postgres, '-D', dataDir, ...settings]), {
    // A session of its own: Ctrl-C in the terminal must not stop the database before those who use it.
    detached: true,
    stdio: ['ignore', options.log ?? 'ignore', options.log ?? 'ignore'],
    cwd: '/',
    env: { PATH: '/usr/bin:/bin', LC_ALL: 'C' },
  })
  const exited = new Promise<void>((done) => child.once('exit', () => done()))
  await untilReady(child, dataDir, options.startTimeoutMs ?? 120_000)
  return {
    url: socketUrl(dataDir),
    pid: child.pid as number,
    exited,
    stop: () => stop(child, exited),
  }
}

/** Where a server on this folder is reached, for `pg` and libpq alike; only its own user is let in. */
export function socketUrl(dataDir: string): string {
  return `postgresql://${role}@localhost/${role}?host=${encodeURIComponent(resolve(dataDir))}`
}

// On the command line nothing in postgresql.conf can weaken them. Durability is what every promise rests on.
const settings = Object.entries({
  fsync: 'on',
  synchronous_commit: 'on',
  full_page_writes: 'on',
  listen_addresses: '',
  unix_socket_directories: '.',
  unix_socket_permissions: '0700',
  max_connections: '200',
  shared_buffers: '128MB',
  max_wal_size: '512MB',
  timezone: 'UTC',
  log_timezone: 'UTC',
}).flatMap(([name, value]) => ['-c', `${name}=${value}`])

/** The command as the server's user. The kernel stops the server when whoever started it dies, even by kill -9. */
function asServer(asRoot: boolean, command: string[], deathSignal = 'INT'): [string, string[]] {
  const identity = asRoot ? [`--reuid=${systemUser}`, `--regid=${systemUser}`, '--clear-groups', '--no-new-privs'] : []
  return ['setpriv', [...identity, `--pdeathsig=${deathSignal}`, '--', ...command]]
}

async function prepareFolder(dataDir: string, asRoot: boolean): Promise<void> {
  await mkdir(dataDir, { recursive: true, mode: 0o700 })
  if (!asRoot) return chmod(dataDir, 0o700)
  const { uid, gid } = await systemIds()
  for (let parent = dirname(dataDir); parent !== '/'; parent = dirname(parent)) {
    const { mode, uid: owner } = await stat(parent)
    if (owner === uid || mode & 0o001) continue
    throw new Error(
      `The user ${systemUser}, which runs PostgreSQL, can't reach ${dataDir}: ${parent} is closed to others. ` +
        `Choose a folder elsewhere, or open it with chmod o+x ${parent}`,
    )
  }
  await chown(dataDir, uid, gid)
  await chmod(dataDir, 0o700)
}

async function systemIds(): Promise<{ uid: number; gid: number }> {
  const find = async () => {
    const [, , uid, gid] = (await run('getent', ['passwd', systemUser])).stdout.split(':')
    return { uid: Number(uid), gid: Number(gid) }
  }
  try {
    return await find()
  } catch {
    // Not there yet: getent says so by its exit code.
    await run('/usr/sbin/useradd', [
      '--system',
      '--user-group',
      '--home-dir',
      '/nonexistent',
      '--shell',
      '/usr/sbin/nologin',
      systemUser,
    ])
    return find()
  }
}

async function initialise(binaries: Binaries, dataDir: string, asRoot: boolean): Promise<void> {
  const version = await readFile(join(dataDir, 'PG_VERSION'), 'utf8').catch(() => undefined)
  // The marker is written last: without it an earlier attempt was cut short, and what it left holds nothing yet.
  const done = join(dataDir, 'paws-initialised')
  if (version && existsSync(done)) {
    if (version.trim() === binaries.major) return
    throw new Error(
      `${dataDir} belongs to PostgreSQL ${version.trim()}, this is ${binaries.major}: move it with pg_upgrade first.`,
    )
  }
  await emptyFolder(dataDir)
  const locale = ['--encoding=UTF8', '--locale=C', '--locale-provider=builtin', '--builtin-locale=C.UTF-8']
  const env = { PATH: '/usr/bin:/bin', LC_ALL: 'C' }
  const initdb = [binaries.initdb, `--pgdata=${dataDir}`, `--username=${role}`, '--auth=peer', ...locale]
  await run(...asServer(asRoot, initdb, 'KILL'), { cwd: '/', env })
  // A server without clients reads one statement a line from stdin; it needs neither socket nor password.
  const single = run(...asServer(asRoot, [binaries.postgres, '--single', '-D', dataDir, 'postgres'], 'KILL'), {
    cwd: '/',
    env,
  })
  single.child.stdin?.end(`CREATE DATABASE ${role}\n`)
  await single
  await writeFile(done, `${new Date().toISOString()}\n`)
  await chmod(done, 0o644)
}

// Only what initdb itself makes may be removed: a folder with anything else in it was given by mistake.
async function emptyFolder(dataDir: string): Promise<void> {
  const { stdout } = await run('ls', ['-A', dataDir])
  const names = stdout.split('\n').filter(Boolean)
  const foreign = names.find((name) => !/^(PG_VERSION|base|global|pg_.*|postgresql\..*|postmaster\..*)$/.test(name))
  if (foreign)
    throw new Error(`${dataDir} is not empty and not a cluster of paws (it holds ${foreign}): choose another folder.`)
  for (const name of names) await rm(join(dataDir, name), { recursive: true, force: true })
}

// After a kill -9 the lock's pid may by now be anybody's, and PostgreSQL would then refuse to start for no reason.
async function removeStaleLock(binaries: Binaries, dataDir: string): Promise<void> {
  const lock = join(dataDir, 'postmaster.pid')
  const text = await readFile(lock, 'utf8').catch(() => undefined)
  if (text === undefined) return
  const pid = Number.parseInt(text, 10)
  if (await isServerOf(pid, binaries, dataDir)) {
    throw new Error(
      `A PostgreSQL server (pid ${pid}) is already running on ${dataDir}: stop it, or what started it, first.`,
    )
  }
  await rm(lock, { force: true })
}

async function isServerOf(pid: number, binaries: Binaries, dataDir: string): Promise<boolean> {
  try {
    const [exe, cwd] = await Promise.all([readlink(`/proc/${pid}/exe`), readlink(`/proc/${pid}/cwd`)])
    return exe.replace(/ \(deleted\)$/, '') === binaries.postgres && cwd === dataDir
  } catch {
    // No such process, or one of another user: neither is our server.
    return false
  }
}

async function writeAccess(dataDir: string): Promise<void> {
  await writeFile(join(dataDir, 'pg_hba.conf'), 'local all all peer map=paws\n')
  await writeFile(join(dataDir, 'pg_ident.conf'), `paws ${userInfo().username} ${role}\n`)
}

// The last line of postmaster.pid is where the server says how far it is; pg_ctl reads the same.
async function untilReady(child: ChildProcess, dataDir: string, timeoutMs: number): Promise<void> {
  let failure: Error | undefined
  child.once('error', (cause) => {
    failure = new Error('PostgreSQL could not be started: is setpriv (package util-linux) there?', { cause })
  })
  for (const deadline = Date.now() + timeoutMs; Date.now() < deadline; await sleep(10)) {
    if (failure) throw failure
    if (child.exitCode !== null || child.signalCode !== null) {
      throw new Error(
        `PostgreSQL ended while it started (${child.signalCode ?? `exit code ${child.exitCode}`}): its log says why.`,
      )
    }
    const lines = (await readFile(join(dataDir, 'postmaster.pid'), 'utf8').catch(() => '')).split('\n')
    if (Number(lines[0]) === child.pid && lines[7]?.trim() === 'ready') return
  }
  child.kill('SIGKILL')
  throw new Error(`PostgreSQL was not ready after ${timeoutMs} ms.`)
}

async function stop(child: ChildProcess, exited: Promise<void>): Promise<void> {
  // Fast first; immediate if a backend hangs (the log is replayed at the next start); at last, by force.
  for (const [signal, patienceMs] of [
    ['SIGINT', 10_000],
    ['SIGQUIT', 5_000],
    ['SIGKILL', 5_000],
  ] as const) {
    if (child.exitCode !== null || child.signalCode !== null) return
    child.kill(signal)
    const timer = new AbortController()
    await Promise.race([exited, sleep(patienceMs, undefined, { signal: timer.signal }).catch(() => undefined)])
    timer.abort()
  }
}
