import 'reflect-metadata'
import { webcrypto } from 'node:crypto'
import { createSecureContext, type SecureContext } from 'node:tls'
import * as x509 from '@peculiar/x509'

/** What a server shows: PEM, both. */
export interface Certificate {
  cert: string
  key: string
}

export interface IssueOptions {
  /** Milliseconds since the epoch */
  notBefore?: number
  notAfter?: number
}

/** A certificate authority of one test. */
export interface TestAuthority {
  /** Its own certificate, PEM */
  certificate: string
  /** A certificate for these names, or addresses */
  issue(names: string[], options?: IssueOptions): Promise<Certificate>
}

const algorithm = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' }
const hour = 3_600_000

export async function createTestAuthority(name = 'paws test authority'): Promise<TestAuthority> {
  const keys = await newKeys()
  const issuer = `CN=${name}`
  const own = await x509.X509CertificateGenerator.createSelfSigned({
    serialNumber: newSerial(),
    name: issuer,
    notBefore: new Date(Date.now() - hour),
    notAfter: new Date(Date.now() + 24 * hour),
    signingAlgorithm: algorithm,
    keys,
    extensions: [
      new x509.BasicConstraintsExtension(true, 0, true),
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.keyCertSign | x509.KeyUsageFlags.cRLSign, true),
      await x509.SubjectKeyIdentifierExtension.create(keys.publicKey),
    ],
  })
  return {
    certificate: own.toString('pem'),
    issue: (names, options) => issue({ issuer, signingKey: keys.privateKey }, names, options),
  }
}

/** A certificate that only its own key vouches for. */
export async function selfSigned(names: string[]): Promise<Certificate> {
  const keys = await newKeys()
  const authority = { issuer: `CN=${names[0]}`, signingKey: keys.privateKey, keys }
  return issue(authority, names)
}

interface Issuer {
  issuer: string
  signingKey: webcrypto.CryptoKey
  keys?: webcrypto.CryptoKeyPair
}

async function issue(issuer: Issuer, names: string[], options: IssueOptions = {}): Promise<Certificate> {
  const keys = issuer.keys ?? (await newKeys())
  const { notBefore = Date.now() - hour, notAfter = Date.now() + 24 * hour } = options
  const isAddress = (name: string) => /^[\d.]+$|:/.test(name)
  const leaf = await x509.X509CertificateGenerator.create({
    serialNumber: newSerial(),
    subject: `CN=${names[0]}`,
    issuer: issuer.issuer,
    notBefore: new Date(notBefore),
    notAfter: new Date(notAfter),
    publicKey: keys.publicKey,
    signingKey: issuer.signingKey,
    signingAlgorithm: algorithm,
    extensions: [
      new x509.SubjectAlternativeNameExtension(
        names.map((value) => ({ type: isAddress(value) ? 'ip' : 'dns', value })),
      ),
      new x509.ExtendedKeyUsageExtension([x509.ExtendedKeyUsage.serverAuth]),
    ],
  })
  const key = await webcrypto.subtle.exportKey('pkcs8', keys.privateKey)
  return { cert: leaf.toString('pem'), key: x509.PemConverter.encode(key, 'PRIVATE KEY') }
}

function newKeys(): Promise<webcrypto.CryptoKeyPair> {
  return webcrypto.subtle.generateKey(algorithm, true, ['sign', 'verify'])
}

// The first bit must be clear: the number is signed.
function newSerial(): string {
  return `0${Buffer.from(webcrypto.getRandomValues(new Uint8Array(12)))
    .toString('hex')
    .slice(1)}`
}

export function contextOf({ cert, key }: Certificate): SecureContext {
  return createSecureContext({ cert, key })
}
