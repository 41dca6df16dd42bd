import { randomBytes } from 'node:crypto'
import { inject } from 'vitest'
import { type Database, openDatabase } from '../../packages/control-plane/src/database/index.ts'
import { createDatabase, dropDatabase, templateName } from './database-admin.ts'

export interface TestDatabase {
  url: string
  db: Database
  /** Closes and drops it */
  close(): Promise<void>
}

/** A migrated database of a test's own, empty, on the run's PostgreSQL server. */
export async function testDatabase(): Promise<TestDatabase> {
  const { url, drop } = await emptyCopy(templateName)
  const { db, close } = await openDatabase(url, { connections: 8 })
  return {
    url,
    db,
    close: async () => {
      await close()
      await drop()
    },
  }
}

/** A database without a single table. */
export async function bareDatabase(): Promise<{ url: string; close(): Promise<void> }> {
  const { url, drop } = await emptyCopy()
  return { url, close: drop }
}

async function emptyCopy(template?: string) {
  const server = inject('postgresUrl')
  const name = `test_${randomBytes(6).toString('hex')}`
  const url = await createDatabase(server, name, template)
  return { url, drop: () => dropDatabase(server, name) }
}
