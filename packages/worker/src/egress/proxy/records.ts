import type { EgressReason, EgressRecord } from '@paws/api'

const BATCH_MS = 50
const BATCH_RECORDS = 200
const MOST_UNKEPT = 2000
const SAME_MS = 1000

/** What one sandbox did, on its way to be kept. Whoever would do more waits while too much of it isn't kept yet. */
export interface Records {
  add(record: EgressRecord): void
  /** The same refusal once in a while only: a flood of it is one thing that happened, and clients ask twice for a name */
  refuseOnce(reason: EgressReason, port: number, rest: { host: string }): void
  /** A promise to wait for before anything that will be recorded; undefined when nothing is to be waited for */
  room(): Promise<void> | undefined
  kept(count: number): void
  /** Sends what is left; nothing is recorded, or waited for, afterwards */
  close(): void
}

export function createRecords(send: (records: EgressRecord[]) => void): Records {
  let batch: EgressRecord[] = []
  let timer: NodeJS.Timeout | undefined
  let unkept = 0
  let isClosed = false
  let waiting: { promise: Promise<void>; resolve: () => void } | undefined

  const lately = createLately()
  const flush = () => {
    clearTimeout(timer)
    timer = undefined
    if (batch.length === 0) return
    send(batch)
    batch = []
  }
  const add = (record: EgressRecord) => {
    if (isClosed) return
    unkept++
    batch.push(printable(record))
    if (batch.length >= BATCH_RECORDS) flush()
    else timer ??= setTimeout(flush, BATCH_MS)
  }
  return {
    add,
    refuseOnce: (reason, port, rest) => {
      const what = reason === 'name-not-allowed' ? `${reason} ${rest.host}` : reason
      if (!lately(what)) add(refusal(reason, port, rest))
    },
    room: () => {
      if (unkept < MOST_UNKEPT || isClosed) return undefined
      waiting ??= Promise.withResolvers<void>()
      return waiting.promise
    },
    kept: (count) => {
      unkept -= count
      if (unkept >= MOST_UNKEPT) return
      waiting?.resolve()
      waiting = undefined
    },
    close: () => {
      flush()
      isClosed = true
      waiting?.resolve()
    },
  }
}

/** Tells whether something was asked about within the last second; of the last hundred things. */
function createLately(): (what: string) => boolean {
  const seen = new Map<string, number>()
  return (what) => {
    const now = performance.now()
    if (now - (seen.get(what) ?? Number.NEGATIVE_INFINITY) < SAME_MS) return true
    seen.delete(what)
    seen.set(what, now)
    if (seen.size > 100) seen.delete(seen.keys().next().value as string)
    return false
  }
}

const control = /\p{Cc}/u
const controls = /\p{Cc}/gu

/** Names are whatever a sandbox has asked for, and records are shown in terminals: none may be an order to one. */
function printable(record: EgressRecord): EgressRecord {
  const { host = '', path = '' } = record
  if (!control.test(host) && !control.test(path)) return record
  const escaped = (text: string) =>
    text.replace(controls, (character) => `\\x${character.charCodeAt(0).toString(16).padStart(2, '0')}`)
  return {
    ...record,
    ...(host && { host: escaped(host).slice(0, 300) }),
    ...(path && { path: escaped(path).slice(0, 2000) }),
  }
}

/** A record of something that got no further. */
export const refusal = (reason: EgressReason, port: number, rest: Partial<EgressRecord> = {}): EgressRecord => ({
  at: new Date().toISOString(),
  decision: 'refused',
  reason,
  port,
  ...rest,
  ...(rest.host !== undefined && { host: rest.host.slice(0, 300) }),
})
