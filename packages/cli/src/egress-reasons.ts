import type { EgressRecord } from '@paws/sdk'

type Reason = NonNullable<EgressRecord['reason']>

/** What to do about a reason. Those that are left out are faults of what the sandbox sent: its log must tell. */
const remedies: Partial<Record<Reason, string>> = {
  'name-not-allowed': 'nothing allows this name: "--allow HOST", or network.allowOut',
  'address-not-pinned': 'addresses are dialled by the name of an allowed host only, and on ports 80 and 443 only',
  'address-not-public':
    'the name leads to an address that is not public; PAWS_EGRESS_RESOLVE on the worker can allow it',
  'name-not-resolved': "the worker's resolver knows no address of it; PAWS_EGRESS_DNS names other servers",
  'upstream-certificate': 'its certificate does not prove that it is this host; PAWS_EGRESS_EXTRA_CA adds authorities',
  'upstream-unreachable': 'the worker could not reach it, or it broke off',
  'tls-failed': "the client did not trust the session's authority, /run/paws/ca.crt, or speaks no TLS that is known",
}

/** One line for each reason that occurs, as far as something can be done about it. */
export function remediesFor(records: EgressRecord[]): string[] {
  const reasons = new Set(records.map((record) => record.reason))
  return [...reasons].flatMap((reason) => (reason && remedies[reason] ? [`${reason}: ${remedies[reason]}`] : []))
}

/** `example.com (name-not-allowed), …`: what got nowhere, each once, at most three of them; undefined for none. */
export function summaryOf(records: EgressRecord[]): string | undefined {
  const failed = records.filter((record) => record.reason !== undefined)
  const named = failed.map(
    ({ host, port, reason }) => `${host === undefined ? `port ${port}` : printable(host)} (${reason})`,
  )
  const once = [...new Set(named)]
  if (once.length === 0) return undefined
  return `${once.slice(0, 3).join(', ')}${once.length > 3 ? ` and ${once.length - 3} more` : ''}`
}

/**
 * A sandbox chooses these texts, and a terminal obeys some bytes: what it could not show becomes `\x…`. A worker escapes
 * records as well; it is done here again since workers are trusted less.
 */
export function printable(text: string): string {
  return text.replaceAll(/[^\x20-\x7e]/g, (char) => `\\x${(char.codePointAt(0) ?? 0).toString(16).padStart(2, '0')}`)
}
