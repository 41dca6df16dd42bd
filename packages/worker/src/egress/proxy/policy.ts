import type { SlotCredential, SlotRules } from '../messages.ts'
import { compilePlaceholders, compileSecrets, type Placeholders, type Secrets } from './scrub/index.ts'

/** What a sandbox's rules say, made ready to be asked for each request. Nothing here does anything. */
export interface Rules {
  /** What holds for a name as `plainName` gives it; undefined when it isn't allowed. An exact name beats a wildcard. */
  hostOf(name: string): Host | undefined
  /** Names that were given exactly, sorted */
  exact: string[]
  auditLog: boolean
  /**
   * The values of all credentials together: a host with one may hand on what another was sent. Only the answers of such
   * hosts are searched.
   */
  secrets: Secrets
}

export interface Host {
  /** Stands for the operator: it may lead to addresses that aren't public */
  operator: boolean
  credential?: Credential
}

export interface Credential {
  headers: { name: string; folded: string; value: string; gitValue?: string }[]
  placeholders: Placeholders
  /** Whether what it does depends on the path, so that a path must have one reading only */
  dependsOnPath: boolean
  appliesTo(method: string, path: string): boolean
}

const label = '[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?'
const plain = new RegExp(`^(?=.{1,253}$)(?:${label}\\.)+(?!\\d+$)${label}$`)

/** A host's name in the one form that is compared: lower case, no dot at the end. Undefined for all that is no plain name. */
export function plainName(text: string): string | undefined {
  const name = (text.endsWith('.') ? text.slice(0, -1) : text).toLowerCase()
  return plain.test(name) ? name : undefined
}

/** A header's name as servers read it that hand headers to programs as variables: X_Api_Key is X-Api-Key there. */
export const folded = (name: string): string => name.toLowerCase().replaceAll('_', '-')

export function compileRules(rules: SlotRules): Rules {
  const operators = new Set(rules.operators)
  const exact = new Map<string, Host>()
  const wildcards = new Map<string, Host>()
  for (const name of rules.allow) {
    const host = { operator: operators.has(name) }
    if (name.startsWith('*.')) wildcards.set(name.slice(2), host)
    else exact.set(name, host)
  }
  for (const [name, credential] of Object.entries(rules.credentials)) {
    exact.set(name, { operator: operators.has(name), credential: compileCredential(credential) })
  }
  return {
    hostOf: (name) => exact.get(name) ?? wildcardHost(wildcards, name),
    exact: [...exact.keys()].sort(),
    auditLog: rules.auditLog,
    secrets: compileSecrets(Object.values(rules.credentials).flatMap(valuesOf)),
  }
}

function wildcardHost(wildcards: Map<string, Host>, name: string): Host | undefined {
  if (wildcards.size === 0) return undefined
  for (let dot = name.indexOf('.'); dot !== -1; dot = name.indexOf('.', dot + 1)) {
    const host = wildcards.get(name.slice(dot + 1))
    if (host) return host
  }
  return undefined
}

/**
 * Set beside a key, as a version or a format, and no secret: searched for, such a value would be torn out of every answer
 * that happens to have it, a date for instance.
 */
const tellsNothing = new Set(
  (
    'accept accept-language content-type user-agent referer origin anthropic-version anthropic-beta openai-beta ' +
    'x-github-api-version notion-version stripe-version x-ms-version'
  ).split(' '),
)

const valuesOf = ({ headers, placeholders }: SlotCredential) => [
  ...Object.entries(headers).flatMap(([name, value]) => (tellsNothing.has(name.toLowerCase()) ? [] : [value])),
  ...placeholders.map(({ value }) => value),
]

function compileCredential({ headers, placeholders, paths, methods }: SlotCredential): Credential {
  const patterns = paths?.map(pathPattern)
  return {
    headers: Object.entries(headers).map(([name, value]) => ({
      name,
      folded: folded(name),
      value,
      gitValue: basicForGit(value),
    })),
    placeholders: compilePlaceholders(placeholders),
    dependsOnPath: patterns !== undefined,
    appliesTo: (method, path) =>
      (methods === undefined || methods.includes(method)) &&
      (patterns === undefined || patterns.some((matches) => matches(path))),
  }
}

/**
 * `*` stands for any characters, slashes too. No regular expression: the sandbox chooses the path, and with several stars
 * one could be made to search for hours, for all sandboxes.
 */
function pathPattern(pattern: string): (path: string) => boolean {
  const [first = '', ...others] = pattern.split('*')
  const last = others.pop()
  if (last === undefined) return (path) => path === first
  return (path) => {
    if (!path.startsWith(first)) return false
    let at = first.length
    for (const part of others) {
      const found = path.indexOf(part, at)
      if (found === -1) return false
      at = found + part.length
    }
    return path.length - last.length >= at && path.endsWith(last)
  }
}

/** Git's servers want a token as a password; who has only a token for their API has it as a bearer's. */
function basicForGit(value: string): string | undefined {
  const token = /^Bearer +(\S+)$/i.exec(value)?.[1]
  return token === undefined
    ? undefined
    : `Basic ${Buffer.from(`x-access-token:${token}`, 'latin1').toString('base64')}`
}

/**
 * Whether two servers could read a path differently: dot segments, empty ones, escaped slashes, dots or control bytes
 * (also in the two ways of escaping that are none: two bytes for a letter, and `%u`), backslashes. One that a credential depends on must not be that.
 */
export function isAmbiguous(path: string): boolean {
  return /\/\/|\\|%(?:2e|2f|5c|25|c[01]|u|[01][0-9a-f]|7f)|\/\.{1,2}(?:[/;]|$)/i.test(path)
}
