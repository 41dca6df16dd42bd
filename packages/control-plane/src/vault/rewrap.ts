import type { Transaction } from '../database/index.ts'
import { dataKeyIdentity } from './data-keys.ts'
import type { MasterKeys } from './master-keys.ts'
import { serverKeyIdentity } from './server-keys.ts'

/**
 * Wraps with the first master key whatever another one has wrapped.
 *
 * @returns how many keys
 * @throws when something was wrapped by a key that is not known, with nothing written
 */
export async function rewrap(trx: Transaction, masterKeys: MasterKeys): Promise<number> {
  const dataKeys = await trx.selectFrom('dataKeys').select(['orgId', 'version', 'wrapped']).forNoKeyUpdate().execute()
  const serverKeys = await trx.selectFrom('serverKeys').select(['name', 'wrapped']).forNoKeyUpdate().execute()
  for (const { wrapped } of [...dataKeys, ...serverKeys]) masterKeys.wrapperOf(wrapped)

  const again = (identity: string, wrapped: Buffer) => masterKeys.wrap(identity, masterKeys.unwrap(identity, wrapped))
  let changed = 0
  for (const { orgId, version, wrapped } of dataKeys) {
    if (masterKeys.isCurrent(wrapped)) continue
    const set = { wrapped: again(dataKeyIdentity(orgId, version), wrapped) }
    await trx.updateTable('dataKeys').set(set).where('orgId', '=', orgId).where('version', '=', version).execute()
    changed++
  }
  for (const { name, wrapped } of serverKeys) {
    if (masterKeys.isCurrent(wrapped)) continue
    const set = { wrapped: again(serverKeyIdentity(name), wrapped) }
    await trx.updateTable('serverKeys').set(set).where('name', '=', name).execute()
    changed++
  }
  return changed
}
