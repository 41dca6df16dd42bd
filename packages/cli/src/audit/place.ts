import type { PawsClient } from '@paws/sdk'
import type { CliConfig, Credentials } from '../config.ts'
import type { Form } from './forms.ts'
import type { Item } from './search.ts'

export type Place = 'environment' | 'proc' | 'files' | 'snapshots' | 'blobs' | 'database' | 'logs' | 'api' | 'callbacks'

/** What is audited: an installation on this machine, and a session that uses secrets in it. */
export interface Subject {
  config: CliConfig
  credentials: Credentials
  client: PawsClient
  sessionId: string
  /** What the path parameters of the API may be filled with */
  params: Record<string, string[]>
  began: Date
  /** Callbacks as they came, headers and body; undefined where this installation delivers none to this machine */
  callbacks: Buffer[] | undefined
}

/** While the session runs, or once it has ended */
export type Phase = 'running' | 'ended'

/** Tells of something that could not be looked at. */
export type Note = (text: string) => void

/** One kind of place where a value could lie. */
export interface PlaceKind {
  /** What is looked through, for people */
  what: string
  when: readonly Phase[]
  /** The ways in which a marker is written here, all of which must be found */
  holds: readonly Form[]
  items(subject: Subject, note: Note): AsyncIterable<Item>
}

export function textItem(where: string, text: string | Buffer): Item {
  return { where, text: true, read: () => [Buffer.from(text)] }
}

export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error)
}
