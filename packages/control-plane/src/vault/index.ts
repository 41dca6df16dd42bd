export { loadMasterKey } from './master-key.ts'
export { type DigestPurpose, openVault, type Vault } from './vault.ts'
