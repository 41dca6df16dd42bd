import type { EgressReason, EgressRecord } from '@paws/api'

const BATCH_MS = 50
const BATCH_RECORDS = 200
const MOST_UNKEPT = 2000

/** What one sandbox did, on its way to be kept. Whoever would do more waits while too much of it isn't kept yet. */
export interface Records {
  add(record: EgressRecord): void
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

  const flush = () => {
    clearTimeout(timer)
    timer = undefined
    if (batch.length === 0) return
    send(batch)
    batch = []
  }
  return {
    add: (record) => {
      if (isClosed) return
      unkept++
      batch.push(printable(record))
      if (batch.length >= BATCH_RECORDS) flush()
      else timer ??= setTimeout(flush, BATCH_MS)
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
