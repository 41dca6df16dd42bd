import type { EgressRecord, EgressRules } from '@paws/api'

/* The seam between sandboxes and what leads out of them: drivers are given it, and know nothing of who made it. */

/** Where a sandbox's network lies: open descriptors of the namespaces, so that no other can take their place. */
export interface NetworkNamespaces {
  /** Told from those of all other sandboxes of this worker */
  name: string
  /** Of the user namespace that owns the network */
  user: number
  net: number
}

/** The only way out of one sandbox's network. Until it is told what it may let out, that is nothing. */
export interface Outlet {
  /**
   * Lets out what these rules allow, instead of what it let out before; open connections to what they don't allow break.
   *
   * @returns what programs inside must know to use it
   * @throws PresetUnavailable when a preset stands for nothing on this machine
   */
  allow(rules: EgressRules, records: RecordSink): Promise<Inlay>
  /** Lets out nothing more, and forgets the rules with their secrets */
  close(): Promise<void>
}

/** Takes records of outgoing requests; more come only when it has resolved. Never rejects. */
export type RecordSink = (records: EgressRecord[]) => Promise<void>

/** What belongs inside a sandbox for its way out to work. None of it is secret. */
export interface Inlay {
  /** Certificate, PEM, of the authority that vouches for every host in this sandbox and nowhere else */
  certificate: string
  /** Variables: made-up values for placeholders, addresses of the hosts that presets stand for */
  env: Record<string, string>
}

/** Makes outlets; the worker's egress. */
export interface Outlets {
  /** Ready when it resolves: what is dialled inside is answered from then on, if only by a refusal */
  open(network: NetworkNamespaces): Promise<Outlet>
}

/** A preset stands for nothing on this machine; says which, and what to do. */
export class PresetUnavailable extends Error {
  override name = 'PresetUnavailable'
}
