import pg from 'pg'
import { socketUrl } from '../../up/postgres.ts'
import { foldersOf } from '../../up/services.ts'
import { allForms } from '../forms.ts'
import type { PlaceKind } from '../place.ts'

const bytea = 17
const rowsAtOnce = 100

/** Bytes as bytes, all else as the text that PostgreSQL makes of it. */
const types: pg.CustomTypesConfig = {
  getTypeParser: (oid: number, format?: 'text' | 'binary') =>
    oid === bytea ? pg.types.getTypeParser(oid, format as 'text') : (text: string) => text,
}

export const database: PlaceKind = {
  what: 'every column of every table, decoded',
  when: ['running', 'ended'],
  holds: allForms,
  async *items({ config }) {
    const connectionString = config.databaseUrl ?? socketUrl(foldersOf(config.dataDir).postgres)
    const client = new pg.Client({ connectionString, types, application_name: 'paws audit' })
    await client.connect()
    try {
      await client.query('begin transaction isolation level repeatable read read only')
      for (const { where, name } of await tablesOf(client)) yield* columnsOf(client, where, name)
    } finally {
      await client.end()
    }
  },
}

async function tablesOf(client: pg.Client): Promise<{ where: string; name: string }[]> {
  const { rows } = await client.query<{ where: string; name: string }>(
    `select table_schema || '.' || table_name as where, format('%I.%I', table_schema, table_name) as name
     from information_schema.tables
     where table_type = 'BASE TABLE' and table_schema not in ('pg_catalog', 'information_schema')
     order by 1`,
  )
  return rows
}

/** One item a row and column. The table may be of any size: it is read by and by. */
async function* columnsOf(client: pg.Client, where: string, name: string) {
  await client.query(`declare audited no scroll cursor for select * from ${name}`)
  for (let row = 1; ; ) {
    const { rows } = await client.query<Record<string, string | Buffer | null>>(`fetch ${rowsAtOnce} from audited`)
    for (const columns of rows) {
      for (const [column, value] of Object.entries(columns)) {
        if (value === null) continue
        yield { where: `${where}.${column}, row ${row}`, text: true, read: () => [Buffer.from(value)] }
      }
      row++
    }
    if (rows.length === 0) break
  }
  await client.query('close audited')
}
