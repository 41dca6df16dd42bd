export { type Database, type OpenOptions, openDatabase, type Transaction } from './client.ts'
export { migrate, pendingMigrations } from './migrate.ts'
export type { DB } from './types.gen.ts'
