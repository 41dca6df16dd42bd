import { CamelCasePlugin, Kysely, type Transaction as KyselyTransaction, PostgresDialect } from 'kysely'
import pg from 'pg'
import type { DB } from './types.gen.ts'

/** The database, or a transaction on it: what may run inside or outside of one takes this. */
export type Database = Kysely<DB>
/** What must run inside a transaction, for its lock or for writing all or nothing, takes this. */
export type Transaction = KyselyTransaction<DB>

const int8 = 20

/** int8 as a number: none of ours grows past 2^53, and a silent rounding would be worse than an error. */
function parseInt8(text: string): number {
  const value = Number(text)
  if (!Number.isSafeInteger(value)) throw new Error(`${text} is too large for a number of JavaScript`)
  return value
}

const types: pg.CustomTypesConfig = {
  getTypeParser: (oid: number, format?: 'text' | 'binary') =>
    oid === int8 ? parseInt8 : pg.types.getTypeParser(oid, format as 'text'),
}

export interface OpenOptions {
  /** Most connections at once; 20 unless set */
  connections?: number
  /** Told of what goes wrong on idle connections, which the pool then replaces */
  onError?: (error: Error) => void
}

/**
 * Opens the database and makes sure that it keeps what it acknowledges.
 *
 * @throws when it can't be reached, isn't UTF8, or one of fsync, synchronous_commit, full_page_writes is off
 */
export async function openDatabase(url: string, options: OpenOptions = {}) {
  const pool = new pg.Pool({
    connectionString: url,
    max: options.connections ?? 20,
    connectionTimeoutMillis: 10_000,
    keepAlive: true,
    types,
    // A control plane that freezes must not hold the locks of its open transaction for ever.
    idle_in_transaction_session_timeout: 60_000,
    application_name: 'paws',
  })
  pool.on('error', (error) => options.onError?.(error))
  // While a connection is in use nobody else listens, and its loss would end the process: its query is told anyway.
  pool.on('connect', (client) => client.on('error', () => undefined))
  try {
    await assertDurable(pool)
  } catch (error) {
    await pool.end()
    throw error
  }
  const db: Database = new Kysely<DB>({
    dialect: new PostgresDialect({ pool }),
    // Keys inside jsonb are data: only names of columns change their case.
    plugins: [new CamelCasePlugin({ maintainNestedObjectKeys: true })],
  })
  return { db, close: () => db.destroy() }
}

async function assertDurable(pool: pg.Pool): Promise<void> {
  const { rows } = await pool.query<{ name: string; setting: string }>(
    `select name, setting from pg_settings
     where name in ('fsync', 'synchronous_commit', 'full_page_writes', 'server_encoding')`,
  )
  for (const { name, setting } of rows) {
    if (name === 'server_encoding') {
      if (setting !== 'UTF8') throw new Error(`The database's encoding is ${setting}: make it with encoding 'UTF8'`)
    } else if (setting === 'off') {
      throw new Error(`PostgreSQL runs with ${name} = off and would lose acknowledged sessions in a crash: turn it on`)
    }
  }
}
