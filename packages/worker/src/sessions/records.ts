import type { EgressRecord } from '@paws/api'
import type { Report } from '../link/report.ts'
import type { RecordSink } from '../sandbox/outlet.ts'

/** Longest piece that carries more than one record, in characters of JSON. */
const pieceLength = 64 * 1024

/** Keeps what left a session's sandbox, and what was refused, with what the session has to report. */
export function keepRecords(report: Promise<Pick<Report, 'write'>>): RecordSink {
  return async (records) => {
    try {
      const { write } = await report
      for (const piece of piecesOf(records)) await write('egress', Buffer.from(piece))
    } catch {
      // Without a journal the session is ended, for that reason: nothing more gets out either.
    }
  }
}

/** JSON arrays of records, in order. */
export function* piecesOf(records: EgressRecord[]): Generator<string> {
  let held: string[] = []
  let length = 0
  for (const text of records.map((record) => JSON.stringify(record))) {
    if (held.length > 0 && length + text.length > pieceLength) {
      yield `[${held.join()}]`
      held = []
      length = 0
    }
    held.push(text)
    length += text.length + 1
  }
  if (held.length > 0) yield `[${held.join()}]`
}
