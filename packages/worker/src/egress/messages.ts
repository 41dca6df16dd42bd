import type { EgressRecord } from '@paws/api'

/**
 * What the worker and its egress process say to each other, over the channel that Node opens between parent and child
 * (`serialization: 'advanced'`). Secrets go this way only: never by argument or environment.
 */

/** The first message: what the operator has set, and what holds for all sandboxes. */
export interface Configure {
  type: 'configure'
  /** `host:port` to `address:port`: dialled as it is, public or not */
  resolve: [from: string, to: string][]
  /** `address:port` of name servers to ask in place of the system's resolver; presets' hosts never are */
  nameServers: string[]
  /** Certificates, PEM: those Node brings with the operator's own for every host, and the machine's for presets' hosts */
  trusted: string[]
  machineTrusted: string[]
  /** For measuring only: without them no answer is searched, no record is made */
  measure?: { scrub: boolean; audit: boolean }
}

/** Comes with a listening socket, or a bound one for `dns-udp`; the sender closes its own copy. */
export interface Listen {
  type: 'listen'
  slot: string
  what: 'http' | 'https' | 'dns-tcp' | 'dns-udp'
}

/** What one sandbox may do, all of it; takes the place of what it might before. */
export interface Allow {
  type: 'allow'
  slot: string
  /** Answered by `allowed` with the same number */
  request: number
  rules: SlotRules
  authority: AuthorityKeys
  /** Names that have an address in this sandbox already, from an earlier egress process */
  pins: Pin[]
}

export interface SlotRules {
  /** Exact names and `*.name`; presets are resolved into names */
  allow: string[]
  /** Those of them that presets stand for: they may lead to addresses that aren't public */
  operators: string[]
  credentials: Record<string, SlotCredential>
  auditLog: boolean
}

export interface SlotCredential {
  headers: Record<string, string>
  /** `standIn` is what the sandbox has; both are bytes of one line */
  placeholders: { standIn: string; value: string }[]
  paths?: string[]
  methods?: string[]
}

/** A session's own certificate authority. */
export interface AuthorityKeys {
  /** PEM */
  certificate: string
  /** PKCS #8, PEM */
  key: string
}

export interface Pin {
  name: string
  address: string
}

/** Closes the slot's listeners and connections and forgets it; answered by `closed`. */
export interface Close {
  type: 'close'
  slot: string
}

/** So many records of a slot have been kept: the flow control of `records`. */
export interface Recorded {
  type: 'recorded'
  slot: string
  count: number
}

export type ToEgress = Configure | Listen | Allow | Close | Recorded

export type FromEgress =
  /** Configured: it takes sockets */
  | { type: 'ready' }
  /** A socket has arrived and is served */
  | { type: 'listening'; slot: string; what: Listen['what'] }
  | { type: 'allowed'; slot: string; request: number }
  /** A name was given an address; told before the sandbox hears it */
  | ({ type: 'pinned'; slot: string } & Pin)
  | { type: 'records'; slot: string; records: EgressRecord[] }
  /** Nothing is left of the slot; its last records, those of what the closing broke off included, have gone before */
  | { type: 'closed'; slot: string }
