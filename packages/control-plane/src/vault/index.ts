export { loadMasterKey } from './master-key.ts'
export { openVault, type Vault } from './vault.ts'
