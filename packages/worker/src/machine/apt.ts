import { execFile } from 'node:child_process'
import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'

const run = promisify(execFile)
const KEYRING = '/usr/share/keyrings/debian-archive-keyring.gpg'

/** One `deb` source of apt's configuration. */
export interface Source {
  uris: string[]
  suites: string[]
  signedBy: string | undefined
}

/** The Debian mirrors that this machine uses. */
export interface Mirrors {
  main: string
  updates: boolean
  security: string | undefined
}

/** What the machine's apt is set to: where Debian comes from, and settings for the way there. */
export interface AptSettings {
  mirrors: Mirrors
  /** Lines of apt.conf; may hold a proxy's password */
  conf: string[]
}

/**
 * Reads the machine's apt configuration.
 *
 * @throws when it names no mirror of Debian
 */
export async function readAptSettings(): Promise<AptSettings> {
  const { stdout } = await run('apt-config', ['dump', '--format', '%F=%v%n'])
  const settings = stdout.split('\n').map((line) => {
    const at = line.indexOf('=')
    return [line.slice(0, at), line.slice(at + 1)] as const
  })
  const paths = await run('apt-config', ['shell', 'list', 'Dir::Etc::sourcelist/f', 'parts', 'Dir::Etc::sourceparts/d'])
  const path = (name: string) => new RegExp(`^${name}='(.*)'$`, 'm').exec(paths.stdout)?.[1]
  const sources = await readSources(path('list'), path('parts'))
  return { mirrors: debianMirrors(sources), conf: transportSettings(settings) }
}

async function readSources(list: string | undefined, parts: string | undefined): Promise<Source[]> {
  const found = list ? parseList(await readIfThere(list)) : []
  const names = parts ? await readdir(parts).catch(absent([])) : []
  for (const name of names.sort()) {
    const file = join(parts ?? '', name)
    if (name.endsWith('.list')) found.push(...parseList(await readIfThere(file)))
    if (name.endsWith('.sources')) found.push(...parseDeb822(await readIfThere(file)))
  }
  return found
}

const absent =
  <T>(instead: T) =>
  (error: NodeJS.ErrnoException): T => {
    if (error.code === 'ENOENT') return instead
    throw error
  }
const readIfThere = (file: string) => readFile(file, 'utf8').catch(absent(''))

/** The one-line format: `deb [signed-by=…] URI SUITE COMPONENT…`. */
export function parseList(text: string): Source[] {
  return text.split('\n').flatMap((line) => {
    const match = /^deb\s+(?:\[([^\]]*)\]\s+)?(\S+)\s+(\S+)/.exec(line.trim())
    if (!match?.[2] || !match[3]) return []
    return { uris: [match[2]], suites: [match[3]], signedBy: /signed-by=(\S+)/i.exec(match[1] ?? '')?.[1] }
  })
}

/** The format of fields and stanzas. */
export function parseDeb822(text: string): Source[] {
  const uncommented = text.replace(/^#.*\n?/gm, '')
  return uncommented.split(/\n\s*\n/).flatMap((stanza) => {
    const field = (name: string) => {
      const match = new RegExp(`^${name}:((?:.*)(?:\\n[ \\t].*)*)`, 'im').exec(stanza)
      return match?.[1]?.trim().split(/\s+/)
    }
    if (field('Enabled')?.[0]?.toLowerCase() === 'no' || !field('Types')?.includes('deb')) return []
    return { uris: field('URIs') ?? [], suites: field('Suites') ?? [], signedBy: field('Signed-By')?.[0] }
  })
}

/** Which of the sources are Debian's own: by their key, or by the usual path where none is named. */
export function debianMirrors(sources: Source[]): Mirrors {
  const debian = sources.filter(({ signedBy, uris }) =>
    signedBy ? signedBy.includes('debian-archive') : uris.some((uri) => /\/debian(-security)?\/?$/.test(uri)),
  )
  const mirrorOf = (kind: RegExp) => debian.find(({ suites }) => suites.some((suite) => kind.test(suite)))?.uris[0]
  const main = mirrorOf(/^[a-z]+$/)
  if (!main) {
    throw new Error(
      'apt on this machine names no Debian mirror, and snapshots are made from one: add a Debian source signed by ' +
        `${KEYRING} (package debian-archive-keyring) to /etc/apt/sources.list.d`,
    )
  }
  return { main, updates: mirrorOf(/-updates$/) !== undefined, security: mirrorOf(/(-security|\/updates)$/) }
}

// How apt gets out, and whether it believes a mirror that lags behind. Everything else is the image's own affair.
function transportSettings(settings: (readonly [string, string])[]): string[] {
  const wanted = /^Acquire::(https?::(Proxy|Timeout)(::.*)?|Check-Valid-Until|Check-Date|Retries|ForceIPv[46])$/i
  return settings.filter(([name, value]) => wanted.test(name) && value).map(([name, value]) => `${name} "${value}";`)
}

/** The one sources file that images are made with; `shown` leaves out what only this machine should know. */
export function sourcesFile(suite: string, mirrors: Mirrors, options: { shown: boolean }): string {
  const uri = (text: string) => (options.shown ? withoutPassword(text) : text)
  const stanza = (uris: string, suites: string) =>
    `Types: deb\nURIs: ${uri(uris)}\nSuites: ${suites}\nComponents: main\nSigned-By: ${KEYRING}\n`
  const main = stanza(mirrors.main, mirrors.updates ? `${suite} ${suite}-updates` : suite)
  return mirrors.security ? `${main}\n${stanza(mirrors.security, `${suite}-security`)}` : main
}

function withoutPassword(uri: string): string {
  return uri.replace(/\/\/[^/@]*@/, '//')
}
