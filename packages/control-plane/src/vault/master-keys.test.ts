import { createHmac, hkdfSync, randomBytes } from 'node:crypto'
import { chmod, mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from 'vitest'
import { type TestDatabase, testDatabase } from '../../../../test/support/database.ts'
import { loadMasterKeys, openVault, type Vault } from './index.ts'

let database: TestDatabase
let folder: string
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'paws-vault-'))
})
afterAll(() => rm(folder, { recursive: true }))
beforeEach(async () => {
  database = await testDatabase()
  await database.db.insertInto('organizations').values({ id: 'org_a', name: 'a' }).execute()
})
afterEach(() => database.close())

const secret = Buffer.from('sk-ant-secret')
const [old, next, wrong] = [randomBytes(32), randomBytes(32), randomBytes(32)] as [Buffer, Buffer, Buffer]
const open = (keys: Buffer[], told?: (count: number) => void) => openVault(database.db, keys, told)
const seal = (vault: Vault) => database.db.transaction().execute((trx) => vault.seal(trx, 'org_a', 'x', secret))

/** Everything that is wrapped, to see whether it changes. */
async function wrapped(): Promise<string[]> {
  const { db } = database
  const dataKeys = await db.selectFrom('dataKeys').select('wrapped').orderBy('orgId').execute()
  const serverKeys = await db.selectFrom('serverKeys').select('wrapped').orderBy('name').execute()
  return [...dataKeys, ...serverKeys].map((row) => row.wrapped.toString('hex'))
}

test('the master key is replaced in steps, and at each of them every control plane opens everything', async () => {
  const first = await open([old])
  const sealed = await seal(first)
  const digest = first.digest('api-key', 'k')
  const opensAll = async (vault: Vault) => {
    expect(await vault.open(database.db, 'org_a', 'x', sealed)).toEqual(secret)
    expect(await vault.open(database.db, 'org_a', 'x', await seal(vault))).toEqual(secret)
    expect(vault.digest('api-key', 'k')).toEqual(digest)
  }
  let told = 0
  const count = (keys: number) => {
    told += keys
  }
  // Each control plane learns the new key, then puts it first, then forgets the old one.
  const learnt = await open([old, next], count)
  expect(told).toBe(0)
  const before = await wrapped()
  const turned = await open([next, old], count)
  expect(told).toBe(5)
  expect((await wrapped()).filter((each) => before.includes(each))).toEqual([])
  await opensAll(learnt)
  await opensAll(turned)
  await opensAll(await open([next, old], count))
  await opensAll(await open([next], count))
  expect(told).toBe(5)
  await expect(open([old])).rejects.toThrow('The master key is not the one')
})

test('control planes that start together for the first time agree on the server’s keys', async () => {
  const opened = await Promise.all(Array.from({ length: 6 }, () => open([old])))
  const digests = opened.map((vault) => vault.digest('api-key', 'k').toString('hex'))
  expect(new Set(digests).size).toBe(1)
})

test('several control planes that start with a new master key at once wrap everything once', async () => {
  await seal(await open([old]))
  const told: number[] = []
  await Promise.all(Array.from({ length: 4 }, () => open([next, old], (count) => told.push(count))))
  expect(told).toEqual([5])
})

test('with an unknown master key nothing starts and nothing is written', async () => {
  await seal(await open([old]))
  const before = await wrapped()
  await expect(open([wrong])).rejects.toThrow('The master key is not the one that this database was sealed with')
  await expect(open([wrong, next])).rejects.toThrow('restore the right one')
  expect(await wrapped()).toEqual(before)
})

test('digests that were made before the server had keys of its own hold on', async () => {
  const pepper = Buffer.from(hkdfSync('sha256', old, '', 'paws digest api-key', 32))
  const digest = createHmac('sha256', pepper).update('k').digest()
  await database.db.insertInto('apiKeys').values(keyRow(digest)).execute()
  const vault = await open([old])
  expect(vault.digest('api-key', 'k')).toEqual(digest)
  const turned = await open([next, old])
  expect(turned.digest('api-key', 'k')).toEqual(digest)
  expect((await open([next])).digest('api-key', 'k')).toEqual(digest)
})

test('of several master keys the one that such digests were made with is told by the data keys', async () => {
  const vault = await open([old])
  await seal(vault)
  await database.db
    .insertInto('apiKeys')
    .values(keyRow(Buffer.from('h')))
    .execute()
  await database.db.deleteFrom('serverKeys').execute()
  const pepper = Buffer.from(hkdfSync('sha256', old, '', 'paws digest api-key', 32))
  const digest = createHmac('sha256', pepper).update('k').digest()
  expect((await open([next, old])).digest('api-key', 'k')).toEqual(digest)
})

test('where it can not be told, a start with several is refused', async () => {
  await database.db
    .insertInto('apiKeys')
    .values(keyRow(Buffer.from('h')))
    .execute()
  await expect(open([next, old])).rejects.toThrow('Start once with the master key that this database was made with')
  expect(await wrapped()).toEqual([])
})

const keyRow = (hash: Buffer) => ({
  id: 'key_1',
  orgId: 'org_a',
  name: 'k',
  prefix: 'p',
  lastFour: 'l',
  hash,
  scopes: [],
})

test('the master key is made once, readable by its owner only, also by several at once', async () => {
  const file = join(folder, 'data/master.key')
  const keys = await Promise.all(Array.from({ length: 5 }, () => loadMasterKeys({ file })))
  expect(new Set(keys.map(([key]) => key?.toString('hex'))).size).toBe(1)
  expect((await stat(file)).mode & 0o777).toBe(0o600)
  expect([Buffer.from(await readFile(file, 'utf8'), 'base64')]).toEqual(keys[0])
  await writeFile(file, `${next.toString('base64')}\n${old.toString('hex')}\n`)
  expect(await loadMasterKeys({ file })).toEqual([next, old])
  await chmod(file, 0o644)
  await expect(loadMasterKeys({ file })).rejects.toThrow('Others can read the master key')
})

test('a master key of the environment must have 32 bytes, and there may be several', async () => {
  const file = join(folder, 'unused')
  const load = (value: string) => loadMasterKeys({ value, file })
  expect(await load(old.toString('hex'))).toEqual([old])
  expect(await load(`${next.toString('base64')}, ${old.toString('hex')}`)).toEqual([next, old])
  await expect(load('short')).rejects.toThrow('PAWS_MASTER_KEY must hold 32 bytes')
  await expect(load(`${old.toString('hex')},short`)).rejects.toThrow('PAWS_MASTER_KEY must hold 32 bytes')
  await expect(load(' , ')).rejects.toThrow('PAWS_MASTER_KEY must hold 32 bytes')
})
