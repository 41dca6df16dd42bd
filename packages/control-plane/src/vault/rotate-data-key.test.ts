import { randomBytes } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { type TestDatabase, testDatabase } from '../../../../test/support/database.ts'
import { openVault, type SealedColumn, type Vault } from './index.ts'

let database: TestDatabase
/** Two control planes' */
let vaults: [Vault, Vault]
beforeEach(async () => {
  database = await testDatabase()
  const { db } = database
  await db
    .insertInto('organizations')
    .values(['org_a', 'org_b'].map((id) => ({ id, name: id })))
    .execute()
  const masterKey = randomBytes(32)
  vaults = [await openVault(db, [masterKey]), await openVault(db, [masterKey])]
})
afterEach(() => database.close())

const columns: SealedColumn[] = [
  { table: 'secrets', column: 'sealed', key: ['name'], context: ({ name }) => `secrets/${name}` },
]

const put = (vault: Vault, name: string, orgId = 'org_a', pauseMs = 0) =>
  database.db.transaction().execute(async (trx) => {
    const sealed = await vault.seal(trx, orgId, `secrets/${name}`, Buffer.from(`value of ${name}`))
    await sleep(pauseMs)
    await trx
      .insertInto('secrets')
      .values({ orgId, name, sealed })
      .onConflict((oc) => oc.columns(['orgId', 'name']).doUpdateSet({ sealed }))
      .execute()
  })

const rowOf = (name: string) =>
  database.db.selectFrom('secrets').select('sealed').where('name', '=', name).executeTakeFirstOrThrow()
async function read(vault: Vault, name: string): Promise<string> {
  const { sealed } = await rowOf(name)
  const again = async () => (await rowOf(name)).sealed
  return (await vault.open(database.db, 'org_a', `secrets/${name}`, sealed, again)).toString()
}
const versions = async (orgId = 'org_a') => {
  const query = database.db.selectFrom('dataKeys').select('version').where('orgId', '=', orgId).orderBy('version')
  return (await query.execute()).map(({ version }) => version)
}
const rotate = (vault: Vault) => vault.rotateDataKey(database.db, 'org_a', columns)

test('what was sealed is sealed anew, the old key is gone, and other organizations keep theirs', async () => {
  const [vault, other] = vaults
  await database.db.transaction().execute(async (trx) => {
    const rows: { orgId: string; name: string; sealed: Buffer }[] = []
    for (let index = 0; index < 450; index++) {
      const name = `s${index}`
      const sealed = await vault.seal(trx, 'org_a', `secrets/${name}`, Buffer.from(`value of ${name}`))
      rows.push({ orgId: 'org_a', name, sealed })
    }
    await trx.insertInto('secrets').values(rows).execute()
  })
  await put(vault, 'theirs', 'org_b')
  expect(await rotate(vault)).toEqual({ version: 2, resealed: 450 })
  expect([await versions(), await versions('org_b')]).toEqual([[2], [1]])
  expect(await read(other, 's0')).toBe('value of s0')
  expect(await read(other, 's449')).toBe('value of s449')
  expect(await rotate(other)).toEqual({ version: 3, resealed: 450 })
  expect(await read(vault, 's7')).toBe('value of s7')
})

test('an organization without any key gets its first', async () => {
  expect(await rotate(vaults[0])).toEqual({ version: 1, resealed: 0 })
  await put(vaults[1], 'x')
  expect(await versions()).toEqual([1])
})

test('what is sealed with the old key while it is replaced is waited for, and not lost', async () => {
  const [vault, other] = vaults
  await put(vault, 'first')
  // Sealed before the new key is there, written long after.
  const late = put(other, 'late', 'org_a', 700)
  await sleep(200)
  const rotation = await rotate(vault)
  await late
  expect(rotation).toEqual({ version: 2, resealed: 2 })
  expect(await versions()).toEqual([2])
  expect(await read(vault, 'late')).toBe('value of late')
})

test('what was read before the old key went is read again', async () => {
  const [vault, other] = vaults
  await put(vault, 'x')
  const { sealed } = await rowOf('x')
  await rotate(vault)
  const open = (again?: () => Promise<Buffer>) => other.open(database.db, 'org_a', 'secrets/x', sealed, again)
  await expect(open()).rejects.toThrow('has no data key of version 1')
  expect((await open(async () => (await rowOf('x')).sealed)).toString()).toBe('value of x')
})

test('two control planes that seal and replace without pause lose nothing', async () => {
  const [vault, other] = vaults
  const written = new Set<string>()
  let rotating = true
  async function write(by: Vault, who: string) {
    for (let index = 0; rotating; index++) {
      const name = `${who}${index % 25}`
      await put(by, name, 'org_a', index % 3)
      written.add(name)
    }
  }
  async function check(by: Vault) {
    while (rotating) {
      for (const name of [...written].slice(0, 5)) expect(await read(by, name)).toBe(`value of ${name}`)
      await sleep(1)
    }
  }
  const busy = [write(vault, 'a'), write(other, 'b'), check(vault), check(other)]
  const rotateOften = async (by: Vault) => {
    for (let turn = 0; turn < 12; turn++) await rotate(by)
  }
  try {
    await Promise.all([rotateOften(vault), rotateOften(other)])
  } finally {
    rotating = false
    await Promise.all(busy)
  }
  expect(written.size).toBe(50)
  for (const name of written) expect(await read(vault, name)).toBe(`value of ${name}`)
  await rotate(vault)
  expect(await versions()).toHaveLength(1)
})
