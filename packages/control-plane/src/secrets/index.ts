export type { OpenedSecret } from './secrets.ts'
export { deleteSecret, listSecrets, openSecrets, putSecret, sealedSecrets } from './secrets.ts'
