import type { CreateSession } from '@paws/sdk'
import { InvalidArgumentError } from 'commander'
import { usageError } from './errors.ts'

type Credentials = NonNullable<NonNullable<CreateSession['network']>['credentials']>
type Kind = 'headers' | 'placeholders'

/** What a credential adds where, by host. */
export interface Given {
  host: string
  kind: Kind
  name: string
  value: string | { secret: string; prefix?: string }
}

const forms = {
  headers: 'HOST: HEADER=secret:NAME',
  placeholders: 'HOST: VARIABLE=secret:NAME',
} satisfies Record<Kind, string>

const options = { headers: '--credential', placeholders: '--placeholder' } satisfies Record<Kind, string>

/**
 * Collects `HOST: NAME=[PREFIX ]secret:STORED` and `…=[PREFIX ]env:VARIABLE`, given any number of times. There is no
 * form with the value itself: others could read it in the list of processes.
 */
export function credentialTerm(kind: Kind, env: NodeJS.ProcessEnv) {
  return (text: string, before: Given[] = []): Given[] => {
    const match = /^([^\s:=]+)(?::\s*|\s+)([^\s=]+)=(?:(.*\s))?(secret|env):(\S+)$/.exec(text)
    if (!match) {
      // Not an InvalidArgumentError: commander repeats the argument then, and this one may hold a key.
      throw usageError(
        `${options[kind]}: Write it like "${forms[kind]}", or env:VARIABLE for a value from here; ` +
          'the value itself stays out of it.',
      )
    }
    const [, written = '', name = '', prefix, source, of = ''] = match
    const host = written.toLowerCase()
    if (source === 'secret') return [...before, { host, kind, name, value: { secret: of, ...(prefix && { prefix }) } }]
    const value = env[of]
    if (!value) throw new InvalidArgumentError(`${of} is not set here.`)
    return [...before, { host, kind, name, value: `${prefix ?? ''}${value}` }]
  }
}

/** Collects hosts, given any number of times or with commas between. */
export function hosts(text: string, before: string[] = []): string[] {
  const named = text.split(',').map((host) => host.trim())
  if (named.some((host) => host === ''))
    throw new InvalidArgumentError('Write the name of a host, like api.example.com.')
  return [...before, ...named]
}

/** The credentials as the API has them. */
export function credentialsOf(given: Given[]): Credentials {
  const found: Credentials = {}
  for (const { host, kind, name, value } of given) {
    const entry = found[host] ?? {}
    found[host] = { ...entry, [kind]: { ...entry[kind], [name]: value } }
  }
  return found
}
