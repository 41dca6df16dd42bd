import { X509Certificate } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { isIP } from 'node:net'
import { homedir, hostname, totalmem } from 'node:os'
import { join } from 'node:path'
import { certificatesIn } from './egress/trust.ts'

/** What an operator has set, checked. */
export interface Config {
  /** The control plane */
  url: URL
  /** One-time token; used only while there is no credential that the control plane knows */
  enrolmentToken: string | undefined
  name: string
  /** The worker's own folder: credential, journal, snapshots, disks */
  dataDir: string
  maxSessions: number
  /** `auto` takes the strongest that this host can run at full speed */
  driver: 'auto' | 'process'
  /** Programs that the launcher has built */
  guestAgent: string
  slotHelper: string
  /** How many network slots are kept ready */
  slots: number
  /** How long running sessions may go on after the first SIGTERM */
  drainMs: number
  logLevel: string
  egress: {
    /** Hosts that lead where the operator says: `host:port` to `address:port` */
    resolve: [from: string, to: string][]
    /** `address:port` of name servers to ask for sandboxes instead of the system's resolver */
    nameServers: string[]
    /** Certificates, PEM, trusted for every host beside those that Node brings */
    extraCa: string[]
  }
}

const logLevels = ['trace', 'debug', 'info', 'warn', 'error', 'silent']

/**
 * Reads the settings from the environment.
 *
 * @throws one error that names every variable that is wrong, and how
 */
export function readConfig(environment: NodeJS.ProcessEnv = process.env): Config {
  const wrong: string[] = []
  // An empty variable means an unset one, as everywhere in shells and compose files.
  const get = (name: string) => environment[name] || undefined
  const fail = (name: string, why: string) => void wrong.push(`${name} ${why}`)
  const number = (name: string, standard: number, [from, to]: [number, number]) => {
    const text = get(name)
    if (text === undefined) return standard
    const value = /^\d+$/.test(text) ? Number(text) : Number.NaN
    if (!(value >= from && value <= to)) fail(name, `must be a whole number from ${from} to ${to}`)
    return value
  }
  const oneOf = <T extends string>(name: string, values: readonly T[], standard: T): T => {
    const value = get(name) ?? standard
    if (!values.some((one) => one === value)) fail(name, `must be one of ${values.join(', ')}`)
    return value as T
  }
  const needed = (name: string, what: string) => {
    const value = get(name)
    if (!value) fail(name, `is not set: it must be ${what}`)
    return value ?? ''
  }

  const maxSessions = number('PAWS_MAX_SESSIONS', usualSessions(), [1, 10_000])
  const config: Config = {
    url: controlPlaneUrl(needed('PAWS_URL', 'the URL of the control plane'), fail),
    enrolmentToken: get('PAWS_ENROLMENT_TOKEN') ?? tokenFrom(get('PAWS_ENROLMENT_TOKEN_FILE'), fail),
    name: get('PAWS_WORKER_NAME') ?? hostLabel(hostname()),
    dataDir: get('PAWS_DATA') ?? defaultDataDir(),
    maxSessions,
    driver: oneOf('PAWS_DRIVER', ['auto', 'process'], 'auto'),
    guestAgent: needed('PAWS_GUEST_AGENT', 'the path of the built guest agent'),
    slotHelper: needed('PAWS_SLOT_HELPER', 'the path of the built slot helper'),
    slots: number('PAWS_SLOTS', Math.min(maxSessions, 8), [1, 1000]),
    drainMs: number('PAWS_DRAIN_MS', 30_000, [0, 86_400_000]),
    logLevel: oneOf('PAWS_LOG_LEVEL', logLevels, 'info'),
    egress: {
      resolve: resolutions(get('PAWS_EGRESS_RESOLVE'), fail),
      nameServers: nameServers(get('PAWS_EGRESS_DNS'), fail),
      extraCa: certificates(get('PAWS_EGRESS_EXTRA_CA'), fail),
    },
  }
  if (!/^[a-z0-9][a-z0-9-]{0,62}$/.test(config.name)) fail('PAWS_WORKER_NAME', 'must be a host label: a-z, 0-9, "-"')
  if (wrong.length > 0) throw new Error(`Settings are wrong:\n${wrong.join('\n')}`)
  return config
}

type Fail = (name: string, why: string) => void

function controlPlaneUrl(text: string, fail: Fail): URL {
  const url = URL.canParse(text) ? new URL(text) : undefined
  if (!url || !/^https?:$/.test(url.protocol)) {
    if (text) fail('PAWS_URL', 'must be a URL like https://paws.example.com')
    return new URL('https://invalid.invalid')
  }
  // The credential and the sessions' secrets cross this line.
  const loopback = url.hostname === 'localhost' || url.hostname === '[::1]' || /^127\.[\d.]+$/.test(url.hostname)
  if (url.protocol === 'http:' && !loopback) {
    fail('PAWS_URL', 'must be https: plain http is taken for loopback only, since secrets cross that line')
  }
  return url
}

const entries = (text = '') =>
  text
    .split(',')
    .map((entry) => entry.trim())
    .filter(Boolean)

const isPort = (text = '') => /^\d{1,5}$/.test(text) && Number(text) >= 1 && Number(text) <= 65535

/** `127.0.0.1:53` or `[::1]:53`. */
function isSocketAddress(text: string): boolean {
  const [, six, four, port] = /^(?:\[([^\]]+)\]|([\d.]+)):(\d+)$/.exec(text) ?? []
  return isPort(port) && (six ? isIP(six) === 6 : isIP(four ?? '') === 4)
}

function resolutions(text: string | undefined, fail: Fail): [string, string][] {
  return entries(text).map((entry) => {
    const [from = '', to = '', ...rest] = entry.split('=')
    const [host = '', port] = from.split(':')
    if (rest.length > 0 || !/^[a-z0-9_.-]+$/i.test(host) || !isPort(port) || !isSocketAddress(to)) {
      fail(
        'PAWS_EGRESS_RESOLVE',
        `must be entries like api.example.com:443=127.0.0.1:8443, with commas; not "${entry}"`,
      )
    }
    return [from.toLowerCase(), to]
  })
}

function nameServers(text: string | undefined, fail: Fail): string[] {
  const servers = entries(text)
  for (const server of servers) {
    if (!isSocketAddress(server))
      fail('PAWS_EGRESS_DNS', `must be addresses like 10.0.0.53:53, with commas; not "${server}"`)
  }
  return servers
}

function certificates(file: string | undefined, fail: Fail): string[] {
  if (!file) return []
  try {
    const found = certificatesIn(readFileSync(file, 'utf8'))
    for (const certificate of found) new X509Certificate(certificate)
    if (found.length === 0) fail('PAWS_EGRESS_EXTRA_CA', `must be a file of certificates, PEM: ${file} has none`)
    return found
  } catch (error) {
    fail('PAWS_EGRESS_EXTRA_CA', `can't be read as certificates, PEM: ${(error as Error).message}`)
    return []
  }
}

function tokenFrom(file: string | undefined, fail: Fail): string | undefined {
  if (!file) return undefined
  try {
    return readFileSync(file, 'utf8').trim() || undefined
  } catch (error) {
    // A token that was used may be gone; whether one is needed shows later.
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined
    fail('PAWS_ENROLMENT_TOKEN_FILE', `can't be read: ${(error as Error).message}`)
    return undefined
  }
}

/** 5 on a small host, else one for each 4 GB, the memory of a session that asks for nothing else. */
function usualSessions(): number {
  return Math.max(5, Math.floor(totalmem() / 1024 ** 3 / 4))
}

function hostLabel(name: string): string {
  const label = name
    .toLowerCase()
    .split('.')[0]
    ?.replace(/[^a-z0-9-]+/g, '-')
    .replace(/^-+/, '')
    .slice(0, 63)
  return label || 'worker'
}

function defaultDataDir(): string {
  return process.getuid?.() === 0 ? '/var/lib/paws/worker' : join(homedir(), '.local/share/paws/worker')
}
