import { createHash } from 'node:crypto'
import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { sql } from 'kysely'
import pg from 'pg'
import type { Database } from './client.ts'

const folder = join(import.meta.dirname, 'migrations')
/** Any number that nobody else locks: control planes that start together migrate one after the other. */
const lockId = 7_209_114

interface Migration {
  name: string
  text: string
  checksum: string
}

/**
 * Brings the database to this version: plain SQL files in the order of their names, each in one transaction.
 *
 * @returns the names of those that were applied now
 * @throws when an applied file was changed since, or the database is of a later version
 */
export async function migrate(url: string): Promise<string[]> {
  const client = new pg.Client({ connectionString: url, keepAlive: true })
  await client.connect()
  try {
    await client.query('select pg_advisory_lock($1)', [lockId])
    await client.query(`create table if not exists migrations (
      name text primary key, checksum text not null, applied_at timestamptz not null default now())`)
    const pending = compare(await readMigrations(), await readApplied(client))
    for (const migration of pending) await apply(client, migration)
    return pending.map((migration) => migration.name)
  } finally {
    // Ending the connection also gives up the lock.
    await client.end()
  }
}

/** Names of the migrations that this version has and the database has not, for readiness. */
export async function pendingMigrations(db: Database): Promise<string[]> {
  const { rows } = await sql<{ name: string; checksum: string }>`select name, checksum from migrations`.execute(db)
  const applied = new Map(rows.map((row) => [row.name, row.checksum]))
  return compare(await readMigrations(), applied).map((migration) => migration.name)
}

async function readMigrations(): Promise<Migration[]> {
  const names = (await readdir(folder)).filter((name) => name.endsWith('.sql')).sort()
  return Promise.all(
    names.map(async (name) => {
      const text = await readFile(join(folder, name), 'utf8')
      return { name, text, checksum: createHash('sha256').update(text).digest('hex') }
    }),
  )
}

async function readApplied(client: pg.Client): Promise<Map<string, string>> {
  const { rows } = await client.query<{ name: string; checksum: string }>('select name, checksum from migrations')
  return new Map(rows.map((row) => [row.name, row.checksum]))
}

function compare(known: Migration[], applied: Map<string, string>): Migration[] {
  const names = new Set(known.map((migration) => migration.name))
  for (const name of applied.keys()) {
    if (!names.has(name)) {
      throw new Error(
        `The database has migration ${name}, which this version does not know: run a later version of paws`,
      )
    }
  }
  for (const { name, checksum } of known) {
    const before = applied.get(name)
    if (before !== undefined && before !== checksum) {
      throw new Error(`Migration ${name} was changed after it had been applied: restore it and add a new file instead`)
    }
  }
  return known.filter((migration) => !applied.has(migration.name))
}

async function apply(client: pg.Client, { name, text, checksum }: Migration): Promise<void> {
  await client.query('begin')
  try {
    await client.query(text)
    await client.query('insert into migrations (name, checksum) values ($1, $2)', [name, checksum])
    await client.query('commit')
  } catch (error) {
    await client.query('rollback')
    throw new Error(`Migration ${name} failed and was rolled back: ${(error as Error).message}`, { cause: error })
  }
}
