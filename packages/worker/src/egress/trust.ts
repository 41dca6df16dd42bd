import { getCACertificates } from 'node:tls'

/** Certificates, PEM, by which hosts prove who they are. */
export interface Trust {
  /** For every host: what Node brings, and the operator's own */
  trusted: string[]
  /** For the hosts of presets, as the machine's own npm and apt see them; the above are not in it */
  machineTrusted: string[]
}

/** @param extra PEM, the operator's own */
export function readTrust(extra: string[]): Trust {
  const trusted = [...new Set([...getCACertificates('bundled'), ...extra])]
  const known = new Set(trusted)
  // `system` follows SSL_CERT_FILE and SSL_CERT_DIR, `extra` is what NODE_EXTRA_CA_CERTS brings.
  const machine = new Set([...getCACertificates('system'), ...getCACertificates('extra')])
  return { trusted, machineTrusted: [...machine].filter((certificate) => !known.has(certificate)) }
}

/** The certificates in the text of a PEM file. */
export function certificatesIn(text: string): string[] {
  return text.match(/-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g)?.map((pem) => `${pem}\n`) ?? []
}
