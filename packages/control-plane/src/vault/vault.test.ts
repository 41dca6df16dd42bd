import { randomBytes } from 'node:crypto'
import { chmod, mkdtemp, readFile, rm, stat } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { type TestDatabase, testDatabase } from '../../../../test/support/database.ts'
import { loadMasterKey, openVault } from './index.ts'

let database: TestDatabase
let folder: string
beforeAll(async () => {
  database = await testDatabase()
  folder = await mkdtemp(join(tmpdir(), 'paws-vault-'))
  await database.db
    .insertInto('organizations')
    .values(['org_a', 'org_b'].map((id) => ({ id, name: id })))
    .execute()
})
afterAll(async () => {
  await database.close()
  await rm(folder, { recursive: true })
})

const secret = Buffer.from('sk-ant-secret')
const masterKey = randomBytes(32)

test('what is sealed opens in its own place only', async () => {
  const { db } = database
  const vault = openVault(masterKey)
  const sealed = await vault.seal(db, 'org_a', 'sessions/1/secrets', secret)
  expect(sealed.includes(secret)).toBe(false)
  expect(await vault.open(db, 'org_a', 'sessions/1/secrets', sealed)).toEqual(secret)
  expect(await openVault(masterKey).open(db, 'org_a', 'sessions/1/secrets', sealed)).toEqual(secret)
  await expect(vault.open(db, 'org_a', 'sessions/2/secrets', sealed)).rejects.toThrow('unable to authenticate')
  await expect(vault.open(db, 'org_b', 'sessions/1/secrets', sealed)).rejects.toThrow('unable to authenticate')
})

test('a change of any byte is noticed', async () => {
  const vault = openVault(masterKey)
  const sealed = await vault.seal(database.db, 'org_a', 'x', secret)
  for (let index = 0; index < sealed.length; index++) {
    const changed = Buffer.from(sealed)
    changed[index] = (changed[index] as number) ^ 1
    await expect(vault.open(database.db, 'org_a', 'x', changed)).rejects.toThrow()
  }
  await expect(vault.open(database.db, 'org_a', 'x', sealed.subarray(0, 20))).rejects.toThrow('unknown format')
})

test('another master key is named as the reason', async () => {
  const sealed = await openVault(masterKey).seal(database.db, 'org_a', 'x', secret)
  const wrong = openVault(randomBytes(32))
  await expect(wrong.open(database.db, 'org_a', 'x', sealed)).rejects.toThrow('master key is not the one')
})

test('a data key of a transaction that is rolled back is not used again', async () => {
  const { db } = database
  const vault = openVault(masterKey)
  const rollback = db.transaction().execute(async (trx) => {
    await vault.seal(trx, 'org_b', 'x', secret)
    throw new Error('rolled back')
  })
  await expect(rollback).rejects.toThrow('rolled back')
  const sealed = await vault.seal(db, 'org_b', 'x', secret)
  expect(await openVault(masterKey).open(db, 'org_b', 'x', sealed)).toEqual(secret)
})

test('digests differ by purpose and by master key', () => {
  const vault = openVault(masterKey)
  const digest = vault.digest('api-key', 'k')
  expect(digest).toEqual(openVault(masterKey).digest('api-key', 'k'))
  expect(digest).not.toEqual(vault.digest('enrolment-token', 'k'))
  expect(digest).not.toEqual(openVault(randomBytes(32)).digest('api-key', 'k'))
})

test('the master key is made once, readable by its owner only, also by several at once', async () => {
  const file = join(folder, 'data/master.key')
  const keys = await Promise.all(Array.from({ length: 5 }, () => loadMasterKey({ file })))
  expect(new Set(keys.map((key) => key.toString('hex'))).size).toBe(1)
  expect((await stat(file)).mode & 0o777).toBe(0o600)
  expect(Buffer.from(await readFile(file, 'utf8'), 'base64')).toEqual(keys[0])
  await chmod(file, 0o644)
  await expect(loadMasterKey({ file })).rejects.toThrow('Others can read the master key')
})

test('a master key of the environment must have 32 bytes', async () => {
  const file = join(folder, 'unused')
  const hex = masterKey.toString('hex')
  expect(await loadMasterKey({ value: hex, file })).toEqual(masterKey)
  expect(await loadMasterKey({ value: masterKey.toString('base64'), file })).toEqual(masterKey)
  await expect(loadMasterKey({ value: 'short', file })).rejects.toThrow('PAWS_MASTER_KEY must hold 32 bytes')
})
