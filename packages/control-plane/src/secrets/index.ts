export { deleteSecret, listSecrets, openSecrets, putSecret, sealedSecrets } from './secrets.ts'
