export { UnreadableError } from './envelope.ts'
export { loadMasterKeys } from './load-master-keys.ts'
export type { SealedColumn } from './rotate-data-key.ts'
export { openVault, type Vault } from './vault.ts'
