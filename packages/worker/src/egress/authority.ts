import 'reflect-metadata'
import { randomBytes, webcrypto } from 'node:crypto'
import {
  BasicConstraintsExtension,
  KeyUsageFlags,
  KeyUsagesExtension,
  PemConverter,
  SubjectKeyIdentifierExtension,
  X509CertificateGenerator,
} from '@peculiar/x509'
import type { AuthorityKeys } from './messages.ts'

const hourMs = 3_600_000
const dayMs = 24 * hourMs

/** A sandbox's own certificate authority. It lives in memory only, and vouches for hosts in that sandbox only. */
export interface Authority extends AuthorityKeys {
  /** Milliseconds since 1970; until then a session that begins now, however long, is served */
  freshUntil: number
}

/** Valid from an hour ago, for clocks that are behind, to a week ahead. */
export async function createAuthority(now = Date.now()): Promise<Authority> {
  const algorithm = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' }
  const keys = await webcrypto.subtle.generateKey(algorithm, true, ['sign', 'verify'])
  const certificate = await X509CertificateGenerator.createSelfSigned({
    // The first bit would make the number negative, and an empty first byte makes it shorter.
    serialNumber: `4${randomBytes(16).toString('hex').slice(1)}`,
    name: 'CN=paws sandbox authority',
    notBefore: new Date(now - hourMs),
    notAfter: new Date(now + 7 * dayMs),
    signingAlgorithm: algorithm,
    keys,
    extensions: [
      new BasicConstraintsExtension(true, 0, true),
      new KeyUsagesExtension(KeyUsageFlags.keyCertSign | KeyUsageFlags.cRLSign, true),
      await SubjectKeyIdentifierExtension.create(keys.publicKey),
    ],
  })
  const key = await webcrypto.subtle.exportKey('pkcs8', keys.privateKey)
  return {
    certificate: `${certificate.toString('pem')}\n`,
    key: PemConverter.encode(key, PemConverter.PrivateKeyTag),
    freshUntil: now + 5 * dayMs,
  }
}
