export { type Database, openDatabase, type Transaction } from './client.ts'
export { migrate, pendingMigrations } from './migrate.ts'
export type { DB } from './types.gen.ts'
