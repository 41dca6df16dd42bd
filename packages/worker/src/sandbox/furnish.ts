import type { Logger } from 'pino'
import { FileRefused, type Sandbox } from './driver.ts'
import type { Inlay } from './outlet.ts'

/** In memory inside, so never part of a snapshot. */
const authorityFile = '/run/paws/ca.crt'
/** Where Debian's programs look by themselves, and where its `update-ca-certificates` takes from. */
export const systemFiles = ['/etc/ssl/certs/ca-certificates.crt', '/usr/local/share/ca-certificates/paws.crt']

const authorityVariables = Object.fromEntries(
  ['NODE_EXTRA_CA_CERTS', 'SSL_CERT_FILE', 'REQUESTS_CA_BUNDLE', 'CURL_CA_BUNDLE', 'GIT_SSL_CAINFO', 'PIP_CERT'].map(
    (name) => [name, authorityFile],
  ),
)

/** What programs inside are given for the way out. */
export interface Furnished {
  /** For every program: where its authority's certificate lies, then the outlet's own variables */
  env: Record<string, string>
  /** Resolves when the files are in place. The guest agent works in order: an `exec` needn't wait for this */
  placed: Promise<void>
}

/**
 * Puts into a sandbox what its way out needs. Its authority is the only one trusted there, since it vouches for every
 * host that can be reached. An image that leads the system's files elsewhere by links keeps them: programs have the
 * variables.
 */
export function furnish(sandbox: Sandbox, { certificate, env }: Inlay, log: Pick<Logger, 'warn'>): Furnished {
  const content = Buffer.from(certificate)
  const put = (path: string) => sandbox.put(path, content, { size: content.length, mode: 0o644 })
  const needed = put(authorityFile)
  const wanted = systemFiles.map((path) =>
    put(path).catch((error: unknown) => {
      if (!(error instanceof FileRefused)) throw error
      log.warn({ err: error, path }, "A sandbox's authority could not be put where its system keeps those")
    }),
  )
  const placed = Promise.all([needed, ...wanted]).then(() => undefined)
  // It may be awaited only after something else has failed.
  placed.catch(() => undefined)
  return { env: { ...authorityVariables, ...env }, placed }
}
