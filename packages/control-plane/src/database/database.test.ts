import { createHash } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { allScopes } from '@paws/api'
import { sql } from 'kysely'
import pg from 'pg'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { bareDatabase, type TestDatabase, testDatabase } from '../../../../test/support/database.ts'
import { generateTypes } from './generate-types.ts'
import { migrate, openDatabase, pendingMigrations } from './index.ts'

let database: TestDatabase
beforeAll(async () => {
  database = await testDatabase()
})
afterAll(() => database.close())

test('types.gen.ts is what the migrations give', async () => {
  const bare = await bareDatabase()
  try {
    await migrate(bare.url)
    expect(() => generateTypes(bare.url, { verify: true })).not.toThrow()
  } finally {
    await bare.close()
  }
})

test('control planes that start together migrate once', async () => {
  const bare = await bareDatabase()
  try {
    const applied = await Promise.all([migrate(bare.url), migrate(bare.url), migrate(bare.url)])
    expect(applied.flat()).toEqual([...new Set(applied.flat())])
    expect(applied.flat()).toContain('0001_foundation.sql')
    expect(await migrate(bare.url)).toEqual([])
  } finally {
    await bare.close()
  }
})

test('a key that could do everything can do what a later version brings; a narrow one stays narrow', async () => {
  const bare = await bareDatabase()
  const client = new pg.Client({ connectionString: bare.url })
  try {
    await client.connect()
    const first = await readFile(join(import.meta.dirname, 'migrations/0001_foundation.sql'), 'utf8')
    await client.query(
      'create table migrations (name text primary key, checksum text not null, applied_at timestamptz)',
    )
    await client.query(first)
    const checksum = createHash('sha256').update(first).digest('hex')
    await client.query('insert into migrations values ($1, $2)', ['0001_foundation.sql', checksum])
    await client.query(`insert into organizations (id, name) values ('org_1', 'x')`)
    const before = ['sessions', 'snapshots', 'organizations'].flatMap((each) => [`${each}:read`, `${each}:write`])
    const keys = { first: [...before, 'fleet:admin'], full: before, narrow: before.slice(0, 5) }
    for (const [id, scopes] of Object.entries(keys)) {
      const row = [id, 'org_1', id, 'p', 'l', Buffer.from(id), scopes]
      await client.query(
        'insert into api_keys (id, org_id, name, prefix, last_four, hash, scopes) values ($1, $2, $3, $4, $5, $6, $7)',
        row,
      )
    }
    await migrate(bare.url)
    const { rows } = await client.query<{ id: string; scopes: string[] }>('select id, scopes from api_keys')
    const found = Object.fromEntries(rows.map(({ id, scopes }) => [id, scopes.sort()]))
    expect(found.first).toEqual([...allScopes].sort())
    expect(found.full).toEqual(allScopes.filter((scope) => scope !== 'fleet:admin').sort())
    expect(found.narrow).toEqual([...keys.narrow].sort())
  } finally {
    await client.end()
    await bare.close()
  }
})

test('a migration that was changed after it had been applied is an error, as is one of a later version', async () => {
  const { url, db, close } = await testDatabase()
  try {
    expect(await pendingMigrations(db)).toEqual([])
    await sql`update migrations set checksum = 'other'`.execute(db)
    await expect(migrate(url)).rejects.toThrow('0001_foundation.sql was changed after it had been applied')
    await sql`update migrations set name = '9999_later.sql' where name = '0001_foundation.sql'`.execute(db)
    await expect(migrate(url)).rejects.toThrow('9999_later.sql, which this version does not know')
  } finally {
    await close()
  }
})

test('a database that may lose what it acknowledged is refused', async () => {
  const bare = await bareDatabase()
  try {
    const client = new pg.Client({ connectionString: bare.url })
    await client.connect()
    await client.query(`alter database ${new URL(bare.url).pathname.slice(1)} set synchronous_commit = off`)
    await client.end()
    await expect(openDatabase(bare.url)).rejects.toThrow(
      'synchronous_commit = off and would lose acknowledged sessions',
    )
  } finally {
    await bare.close()
  }
})

test('int8 is a number, and one that a number cannot hold is an error, not a rounding', async () => {
  const read = (value: string) => sql<{ value: number }>`select ${sql.raw(value)}::int8 as value`.execute(database.db)
  expect((await read('9007199254740991')).rows).toEqual([{ value: 9007199254740991 }])
  await expect(read('9007199254740993')).rejects.toThrow('too large')
})
