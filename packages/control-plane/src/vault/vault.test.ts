import { randomBytes } from 'node:crypto'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { type TestDatabase, testDatabase } from '../../../../test/support/database.ts'
import type { Database } from '../database/index.ts'
import { openVault as openVaultOf, UnreadableError, type Vault } from './index.ts'

let database: TestDatabase
beforeAll(async () => {
  database = await testDatabase()
  await database.db
    .insertInto('organizations')
    .values(['org_a', 'org_b'].map((id) => ({ id, name: id })))
    .execute()
})
afterAll(() => database.close())

const secret = Buffer.from('sk-ant-secret')
const masterKey = randomBytes(32)
const openVault = () => openVaultOf(database.db, [masterKey])

function seal(db: Database, vault: Vault, orgId: string, context: string): Promise<Buffer> {
  return db.transaction().execute((trx) => vault.seal(trx, orgId, context, secret))
}

test('what is sealed opens in its own place only', async () => {
  const { db } = database
  const vault = await openVault()
  const sealed = await seal(db, vault, 'org_a', 'sessions/1/secrets')
  expect(sealed.includes(secret)).toBe(false)
  expect(await vault.open(db, 'org_a', 'sessions/1/secrets', sealed)).toEqual(secret)
  const another = await openVault()
  expect(await another.open(db, 'org_a', 'sessions/1/secrets', sealed)).toEqual(secret)
  const foreign = [
    ['org_a', 'sessions/2/secrets'],
    ['org_b', 'sessions/1/secrets'],
  ] as const
  await seal(db, vault, 'org_b', 'x')
  for (const [orgId, context] of foreign) {
    await expect(vault.open(db, orgId, context, sealed)).rejects.toThrow('belong to another place')
  }
})

test('a change of any byte is noticed', async () => {
  const vault = await openVault()
  const sealed = await seal(database.db, vault, 'org_a', 'x')
  for (let index = 0; index < sealed.length; index++) {
    const changed = Buffer.from(sealed)
    changed[index] = (changed[index] as number) ^ 1
    await expect(vault.open(database.db, 'org_a', 'x', changed)).rejects.toThrow(UnreadableError)
  }
  await expect(vault.open(database.db, 'org_a', 'x', sealed.subarray(0, 20))).rejects.toThrow('unknown format')
})

test('a data key of a transaction that is rolled back is not used again', async () => {
  const { db, close } = await testDatabase()
  try {
    await db.insertInto('organizations').values({ id: 'org_c', name: 'c' }).execute()
    const vault = await openVaultOf(db, [masterKey])
    const rollback = db.transaction().execute(async (trx) => {
      const sealed = await vault.seal(trx, 'org_c', 'x', secret)
      expect(await vault.open(trx, 'org_c', 'x', sealed)).toEqual(secret)
      throw new Error('rolled back')
    })
    await expect(rollback).rejects.toThrow('rolled back')
    const sealed = await seal(db, vault, 'org_c', 'x')
    expect(await vault.open(db, 'org_c', 'x', sealed)).toEqual(secret)
  } finally {
    await close()
  }
})

test('organizations that seal for the first time, many at once, have one data key', async () => {
  const { db } = database
  await db.insertInto('organizations').values({ id: 'org_d', name: 'd' }).execute()
  const vaults = [await openVault(), await openVault()]
  const sealing = Array.from({ length: 12 }, (_, index) => seal(db, vaults[index % 2] as Vault, 'org_d', 'x'))
  for (const sealed of await Promise.all(sealing)) {
    expect(await vaults[0]?.open(db, 'org_d', 'x', sealed)).toEqual(secret)
  }
  expect(await db.selectFrom('dataKeys').selectAll().where('orgId', '=', 'org_d').execute()).toHaveLength(1)
})

test('digests differ by purpose and by database, and are the same in every control plane', async () => {
  const vault = await openVault()
  const digest = vault.digest('api-key', 'k')
  expect(digest).toEqual((await openVault()).digest('api-key', 'k'))
  expect(digest).not.toEqual(vault.digest('enrolment-token', 'k'))
  const other = await testDatabase()
  try {
    expect(digest).not.toEqual((await openVaultOf(other.db, [masterKey])).digest('api-key', 'k'))
  } finally {
    await other.close()
  }
})
