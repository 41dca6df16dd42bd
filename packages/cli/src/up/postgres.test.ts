import { execFile, spawn } from 'node:child_process'
import { mkdir, mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import pg from 'pg'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { type Postgres, startPostgres } from './postgres.ts'

const run = promisify(execFile)
const asRoot = process.getuid?.() === 0
let dataDir: string
let running: Postgres[]

beforeEach(async () => {
  dataDir = await mkdtemp(join(tmpdir(), 'paws-pg-'))
  running = []
})
afterEach(async () => {
  for (const server of running) await server.stop()
  await rm(dataDir, { recursive: true, force: true })
})

async function start(folder = dataDir): Promise<Postgres> {
  const server = await startPostgres({ dataDir: folder })
  running.push(server)
  return server
}

async function query<T extends pg.QueryResultRow>(url: string, sql: string): Promise<T[]> {
  const client = new pg.Client({ connectionString: url })
  await client.connect()
  try {
    return (await client.query<T>(sql)).rows
  } finally {
    await client.end()
  }
}

test('writes are durable, whatever the configuration file says, and no port is opened', async () => {
  const server = await start()
  await writeFile(join(dataDir, 'postgresql.conf'), 'fsync = off\nsynchronous_commit = off\n', { flag: 'a' })
  await server.stop()
  const again = await start()
  const names = ['fsync', 'synchronous_commit', 'full_page_writes', 'listen_addresses', 'data_checksums']
  const rows = await query(
    again.url,
    `select ${names.map((name) => `current_setting('${name}') as ${name}`).join(', ')}`,
  )
  const on = 'on'
  expect(rows).toEqual([
    { fsync: on, synchronous_commit: on, full_page_writes: on, listen_addresses: '', data_checksums: on },
  ])
})

test('after kill -9 every committed row is there, at the same address, past a stale lock with a live foreign pid', async () => {
  const server = await start()
  await query(server.url, 'create table kept as select generate_series(1, 1000) as n')
  process.kill(server.pid, 'SIGKILL')
  await server.exited
  const lock = join(dataDir, 'postmaster.pid')
  const [, ...rest] = (await readFile(lock, 'utf8')).split('\n')
  await writeFile(lock, [process.pid, ...rest].join('\n'))
  const again = await start()
  expect(again.url).toBe(server.url)
  expect(await query(again.url, 'select count(*)::int as rows from kept')).toEqual([{ rows: 1000 }])
})

test('a folder in use is refused by the pid of its server, and that one lives on', async () => {
  const server = await start()
  await expect(startPostgres({ dataDir })).rejects.toThrow(
    `A PostgreSQL server (pid ${server.pid}) is already running on ${dataDir}`,
  )
  expect(await query(server.url, 'select 1 as one')).toEqual([{ one: 1 }])
})

test('two servers start at once and never meet', async () => {
  const second = await mkdtemp(join(tmpdir(), 'paws-pg-'))
  try {
    const [a, b] = await Promise.all([start(), start(second)])
    await query(a.url, 'create table only_in_a (n int)')
    expect(await query(b.url, "select to_regclass('only_in_a') as found")).toEqual([{ found: null }])
    await b.stop()
  } finally {
    await rm(second, { recursive: true, force: true })
  }
})

test('an initialisation that was cut short is begun again; a folder with something else is left alone', async () => {
  await writeFile(join(dataDir, 'PG_VERSION'), '18\n')
  await mkdir(join(dataDir, 'base'))
  const server = await start()
  expect(await query(server.url, 'select current_database() as name')).toEqual([{ name: 'paws' }])
  await server.stop()

  const other = await mkdtemp(join(tmpdir(), 'paws-pg-'))
  try {
    await writeFile(join(other, 'thesis.txt'), 'years of work')
    await expect(startPostgres({ dataDir: other })).rejects.toThrow('it holds thesis.txt')
    expect(await readdir(other)).toEqual(['thesis.txt'])
  } finally {
    await rm(other, { recursive: true, force: true })
  }
})

test('another major version is named, not overwritten', async () => {
  await (await start()).stop()
  await writeFile(join(dataDir, 'PG_VERSION'), '17\n')
  await expect(startPostgres({ dataDir })).rejects.toThrow('belongs to PostgreSQL 17')
})

test.runIf(asRoot)('the server has no privilege, and another user can’t reach its socket', async () => {
  const server = await start()
  const status = await readFile(`/proc/${server.pid}/status`, 'utf8')
  expect(status).toMatch(/^CapEff:\t0+$/m)
  expect(status).toMatch(/^NoNewPrivs:\t1$/m)
  expect((await stat(dataDir)).mode & 0o777).toBe(0o700)
  const script = `require('net').connect(${JSON.stringify(join(dataDir, '.s.PGSQL.5432'))}).on('error', e => console.log(e.code))`
  const { stdout } = await run('setpriv', [
    '--reuid=65534',
    '--regid=65534',
    '--clear-groups',
    '--',
    process.execPath,
    '-e',
    script,
  ])
  expect(stdout).toBe('EACCES\n')
})

test.runIf(asRoot)('a folder that the server’s user can’t reach is explained', async () => {
  await expect(startPostgres({ dataDir: join(dataDir, 'inside') })).rejects.toThrow(`${dataDir} is closed to others`)
})

test('the server ends when the process that started it is killed', async () => {
  const script = `
    const { startPostgres } = await import(${JSON.stringify(new URL('./postgres.ts', import.meta.url).href)})
    const { pid } = await startPostgres({ dataDir: ${JSON.stringify(dataDir)} })
    console.log(pid)
    setInterval(() => {}, 1000)`
  const starter = spawn(process.execPath, ['--input-type=module', '-e', script], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  const pid = Number(await new Promise((done) => starter.stdout.once('data', done)))
  const socket = connect(join(dataDir, '.s.PGSQL.5432'))
  await new Promise((done) => socket.once('connect', done))
  starter.kill('SIGKILL')
  await new Promise((done) => socket.once('close', done))
  const state = () =>
    readFile(`/proc/${pid}/stat`, 'utf8').then(
      (line) => line.split(' ')[2],
      () => 'gone',
    )
  // Whether pid 1 buries the dead at once is its affair.
  await expect.poll(state, { timeout: 10_000 }).toMatch(/^(gone|Z)$/)
})
