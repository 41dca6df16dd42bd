import 'reflect-metadata'
import { randomBytes, webcrypto } from 'node:crypto'
import { createSecureContext, type SecureContext } from 'node:tls'
import {
  AuthorityKeyIdentifierExtension,
  BasicConstraintsExtension,
  ExtendedKeyUsage,
  ExtendedKeyUsageExtension,
  KeyUsageFlags,
  KeyUsagesExtension,
  PemConverter,
  SubjectAlternativeNameExtension,
  X509Certificate,
  X509CertificateGenerator,
} from '@peculiar/x509'
import type { AuthorityKeys } from '../messages.ts'

const algorithm = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' }
/** A wildcard may have thousands of names; each certificate takes some 50 KB as OpenSSL keeps it. */
const MOST_KEPT = 200

/** Gives the certificate of one host, signed by the sandbox's own authority. */
export type Leaves = (name: string) => Promise<SecureContext>

/** Certificates are made when first asked for, all on one key: only this process has it, and it ends with the sandbox. */
export function createLeaves(authority: AuthorityKeys): Leaves {
  let signer: Promise<Signer> | undefined
  const kept = new Map<string, Promise<SecureContext>>()
  return (name) => {
    const known = kept.get(name)
    if (known) return known
    if (kept.size >= MOST_KEPT) kept.delete(kept.keys().next().value as string)
    signer ??= prepare(authority)
    const leaf = signer.then((ready) => issue(ready, name))
    kept.set(name, leaf)
    return leaf
  }
}

interface Signer {
  authority: X509Certificate
  authorityKey: webcrypto.CryptoKey
  keys: webcrypto.CryptoKeyPair
  /** PEM */
  key: string
}

async function prepare(authority: AuthorityKeys): Promise<Signer> {
  const { subtle } = webcrypto
  const keys = await subtle.generateKey(algorithm, true, ['sign', 'verify'])
  return {
    authority: new X509Certificate(authority.certificate),
    authorityKey: await subtle.importKey('pkcs8', PemConverter.decodeFirst(authority.key), algorithm, false, ['sign']),
    keys,
    key: PemConverter.encode(await subtle.exportKey('pkcs8', keys.privateKey), PemConverter.PrivateKeyTag),
  }
}

async function issue({ authority, authorityKey, keys, key }: Signer, name: string): Promise<SecureContext> {
  const certificate = await X509CertificateGenerator.create({
    serialNumber: `4${randomBytes(16).toString('hex').slice(1)}`,
    // The name stands in the extension only, where clients look: as a subject long ones would not fit.
    subject: 'CN=paws sandbox host',
    issuer: authority.subjectName,
    notBefore: authority.notBefore,
    notAfter: authority.notAfter,
    signingAlgorithm: algorithm,
    signingKey: authorityKey,
    publicKey: keys.publicKey,
    extensions: [
      new BasicConstraintsExtension(false, undefined, true),
      new KeyUsagesExtension(KeyUsageFlags.digitalSignature, true),
      new ExtendedKeyUsageExtension([ExtendedKeyUsage.serverAuth]),
      new SubjectAlternativeNameExtension([{ type: 'dns', value: name }]),
      await AuthorityKeyIdentifierExtension.create(authority),
    ],
  })
  return createSecureContext({ cert: certificate.toString('pem'), key })
}
