import { readFileSync } from 'node:fs'
import { homedir } from 'node:os'
import { join, resolve } from 'node:path'

/** Where a control plane is, and a key for it. */
export interface Credentials {
  url: string
  apiKey: string
}

/** Everything that the environment says to the command line; nothing else in this package reads process.env. */
export interface CliConfig {
  /** `PAWS_URL` */
  url: string | undefined
  /** `PAWS_KEY` */
  apiKey: string | undefined
  /** `PAWS_DATA`: where `up` keeps everything. As root /var/lib/paws, since others than root must reach parts of it */
  dataDir: string
  /** `PORT` of the control plane that `up` starts; 0 takes a free one */
  port: number
  /** `HOST`: the address it listens on */
  host: string
  /** `DATABASE_URL`: a PostgreSQL server of one's own, instead of the one that `up` brings */
  databaseUrl: string | undefined
  /** What `paws login` writes, mode 0600 */
  loginFile: string
  /** What `up` writes beside its data, mode 0600 */
  installFile: string
  /** Whether colours were asked for or against; undefined leaves it to the terminal */
  color: boolean | undefined
  /** Environment for child processes */
  env: NodeJS.ProcessEnv
}

export function readConfig(env: NodeJS.ProcessEnv = process.env): CliConfig {
  const dataDir = resolve(env.PAWS_DATA || defaultDataDir(env))
  const port = Number(env.PORT || 8080)
  if (!Number.isInteger(port) || port < 0 || port > 65_535) {
    throw new Error(`PORT is "${env.PORT}", which is no port. Set it to a number from 0 to 65535, or unset it.`)
  }
  return {
    url: env.PAWS_URL || undefined,
    apiKey: env.PAWS_KEY || undefined,
    dataDir,
    port,
    host: env.HOST || '127.0.0.1',
    databaseUrl: env.DATABASE_URL || undefined,
    loginFile: join(env.XDG_CONFIG_HOME || join(homedir(), '.config'), 'paws', 'credentials.json'),
    installFile: join(dataDir, 'credentials.json'),
    color: env.NO_COLOR ? false : env.FORCE_COLOR && env.FORCE_COLOR !== '0' ? true : undefined,
    env,
  }
}

function defaultDataDir(env: NodeJS.ProcessEnv): string {
  if (process.getuid?.() === 0) return '/var/lib/paws'
  return join(env.XDG_DATA_HOME || join(homedir(), '.local', 'share'), 'paws')
}

/**
 * The credentials to use: from the environment, else from `paws login`, else those that `./paws up` left here.
 * `PAWS_URL` alone keeps the stored key of that same URL only, so that a key is never sent to another server.
 *
 * @throws when there are none, saying what to do
 */
export function findCredentials(config: CliConfig): Credentials {
  if (config.url && config.apiKey) return { url: config.url, apiKey: config.apiKey }
  for (const file of [config.loginFile, config.installFile]) {
    const stored = readCredentials(file)
    if (!stored) continue
    if (config.url && !sameServer(config.url, stored.url)) continue
    return { url: config.url ?? stored.url, apiKey: config.apiKey ?? stored.apiKey }
  }
  if (config.url) {
    throw new Error(`There is no API key for ${config.url}. Set PAWS_KEY, or run "paws login --url ${config.url}".`)
  }
  throw new Error(
    'No control plane is known. Set PAWS_URL and PAWS_KEY, run "paws login", or start one with "./paws up".',
  )
}

/** Reads a credentials file. Absent or not ours to read is undefined; a broken one is an error that names it. */
export function readCredentials(file: string): Credentials | undefined {
  let text: string
  try {
    text = readFileSync(file, 'utf8')
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code
    if (code === 'ENOENT' || code === 'ENOTDIR' || code === 'EACCES') return undefined
    throw error
  }
  const stored: unknown = parse(text, file)
  if (isCredentials(stored)) return { url: stored.url, apiKey: stored.apiKey }
  throw new Error(`${file} holds no "url" and "apiKey". Remove it and run "paws login" again.`)
}

function parse(text: string, file: string): unknown {
  try {
    return JSON.parse(text)
  } catch (cause) {
    throw new Error(`${file} is not JSON. Remove it and run "paws login" again.`, { cause })
  }
}

function isCredentials(value: unknown): value is Credentials {
  if (typeof value !== 'object' || value === null) return false
  const { url, apiKey } = value as Partial<Credentials>
  return typeof url === 'string' && typeof apiKey === 'string'
}

function sameServer(a: string, b: string): boolean {
  try {
    return new URL(a).origin === new URL(b).origin
  } catch {
    // Not a URL: then it is no server that we have a key for, and the request will say what is wrong with it.
    return false
  }
}
