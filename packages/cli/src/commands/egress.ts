import type { EgressRecord } from '@paws/sdk'
import { Option } from 'commander'
import { type Register, withJson } from '../context.ts'
import { printable, remediesFor } from '../egress-reasons.ts'
import { type Columns, shortDuration } from '../output.ts'
import { count } from '../terms.ts'

interface EgressOptions {
  decision?: EgressRecord['decision']
  last: number
  json?: boolean
}

const columns: Columns<EgressRecord> = {
  TIME: (record) => record.at.slice(11, 23),
  DECISION: (record) => record.decision,
  TO: ({ host, port }) => (host === undefined ? `:${port}` : `${printable(host)}:${port}`),
  METHOD: (record) => record.method && printable(record.method),
  PATH: (record) => record.path && printable(record.path),
  STATUS: (record) => record.status,
  TOOK: ({ durationMs }) => (durationMs === undefined ? undefined : shortDuration(durationMs)),
  CREDENTIAL: (record) => (record.credential ? 'added' : undefined),
  REASON: (record) => record.reason,
}

const help = `
Examples:
  paws egress SESSION                       what was refused; with "run --audit" all that left
  paws egress --decision refused SESSION    why something does not get out

Newest first, times in UTC. Names and paths are as the sandbox sent them; what a terminal could not show stands as \\x…`

export const egressCommand: Register = (program, context) => {
  withJson(
    program
      .command('egress <session>')
      .summary("show a session's outgoing requests")
      .description("Shows a session's outgoing requests, newest first, and why some were refused."),
  )
    .addOption(new Option('--decision <kind>', 'only those').choices(['allowed', 'refused']))
    .option('-n, --last <n>', 'how many at most', count, 200)
    .addHelpText('after', help)
    .action(async (sessionId: string, { decision, last, json }: EgressOptions) => {
      const rows: EgressRecord[] = []
      for await (const record of context.client().sessions.egress(sessionId, { decision })) {
        if (rows.push(record) === last) break
      }
      if (json) context.output.json({ requests: rows })
      else {
        context.output.table(rows, columns, 'No request is recorded. Those that got out are with "run --audit".')
        for (const remedy of remediesFor(rows)) context.output.note(remedy)
      }
    })
}
