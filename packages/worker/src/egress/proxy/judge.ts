import type { EgressReason } from '@paws/api'
import type { Exchange } from './exchange.ts'
import { type Credential, type Host, isAmbiguous, plainName, type Rules } from './policy.ts'

export interface Refusal {
  status: number
  reason: EgressReason
  message: string
}

/** A request that may go out. */
export interface Admission {
  host: Host
  name: string
  /** Path and query, as they came */
  target: string
  path: string
  query: string
  /** The host's, when it applies to this request */
  credential?: Credential
}

export type Verdict = { refusal: Refusal } | { admission: Admission }

type Asked = Pick<Exchange, 'connection' | 'method' | 'target' | 'hosts'>

/** Decides about one request; each on a connection anew, by the rules as they are now. */
export function judge(rules: Rules | undefined, asked: Asked): Verdict {
  const { connection, method, hosts } = asked
  if (method === 'CONNECT' || method === 'TRACE') {
    return refuse(405, 'method-refused', `${method} is not forwarded: send the request itself, to the host itself.`)
  }
  if (connection.name === undefined) {
    const remedy = 'Use the name of a host that network.allowOut has'
    return refuse(403, 'address-not-pinned', `No allowed name has the address ${connection.address}. ${remedy}.`)
  }
  const said = hosts.length === 1 ? splitAuthority(hosts[0] as string) : undefined
  if (!said) return refuse(400, 'host-malformed', 'A request must name its host, once, by a plain name.')
  const target = splitTarget(asked.target)
  if (!target) return refuse(400, 'request-malformed', 'The target of the request is neither a path nor an address.')
  for (const authority of target.authority === undefined ? [said] : [said, splitAuthority(target.authority)]) {
    if (!agrees(connection, authority, target.scheme)) return disagreement(connection, hosts[0] as string)
  }
  const { name } = connection
  const host = rules?.hostOf(name)
  if (!host) return refuse(403, 'name-not-allowed', `Add "${name}" to network.allowOut to let this out.`)
  const mark = target.path.indexOf('?')
  const path = mark === -1 ? target.path : target.path.slice(0, mark)
  if (host.credential?.dependsOnPath && isAmbiguous(path)) {
    const remedy = 'Send it without dot segments, empty segments and escaped separators'
    return refuse(
      403,
      'path-ambiguous',
      `The path could be read in two ways, and a credential depends on it. ${remedy}.`,
    )
  }
  // Only over verified TLS is it certain who gets it.
  const applies = connection.tls && host.credential?.appliesTo(method, path)
  return {
    admission: {
      host,
      name,
      target: target.path,
      path,
      query: mark === -1 ? '' : target.path.slice(mark),
      ...(applies && { credential: host.credential }),
    },
  }
}

const refuse = (status: number, reason: EgressReason, message: string): Verdict => ({
  refusal: { status, reason, message },
})

interface Authority {
  name: string
  port: number | undefined
}

function splitAuthority(text: string): Authority | undefined {
  const [, host = '', port] = /^([^:]*)(?::(\d{1,5}))?$/.exec(text) ?? []
  const name = plainName(host)
  return name === undefined ? undefined : { name, port: port === undefined ? undefined : Number(port) }
}

interface Target {
  path: string
  scheme?: string
  authority?: string
}

/** Undefined for what no server reads as a path: "*", a fragment, control bytes. */
function splitTarget(text: string): Target | undefined {
  if (/[\0- #\x7f]/.test(text)) return undefined
  if (text.startsWith('/')) return { path: text }
  const [, scheme, authority, rest = ''] = /^(https?):\/\/([^/?]*)([/?].*)?$/i.exec(text) ?? []
  if (scheme === undefined || authority === undefined) return undefined
  return { path: rest.startsWith('/') ? rest : `/${rest}`, scheme: scheme.toLowerCase(), authority }
}

function agrees({ name, port, tls }: Asked['connection'], said: Authority | undefined, scheme: string | undefined) {
  return (
    said !== undefined &&
    said.name === name &&
    (said.port === undefined || said.port === port) &&
    (scheme === undefined || scheme === (tls ? 'https' : 'http'))
  )
}

function disagreement({ name, port, tls }: Asked['connection'], said: string): Verdict {
  const message = `This connection is to ${name}:${port}, and the request is for ${JSON.stringify(said)}.`
  return refuse(421, tls ? 'sni-host-mismatch' : 'host-address-mismatch', `${message} Open another one for it.`)
}
