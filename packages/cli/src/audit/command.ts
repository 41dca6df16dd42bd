import { createClient } from '@paws/sdk'
import { readCredentials } from '../config.ts'
import { type Context, type Register, readText, withJson } from '../context.ts'
import { Exit, exitCodes, usageError } from '../errors.ts'
import { type Columns, megabytes } from '../output.ts'
import { createSteps } from '../up/steps.ts'
import { auditSecrets, isGood, type PlaceReport, type Report } from './audit.ts'
import { shortestValue } from './search.ts'

const help = `
On the machine of "./paws up", as the same user, while it runs. It stores a made-up secret, builds a snapshot and runs a
session that sends made-up credentials to --host, then looks for them in the sandbox's environment, processes and files,
in the data folder, all snapshots, the blobs, the database, the logs, every answer of the API and the callbacks: raw, as
hex, base64, URL- and JSON-escaped, and in what is compressed. Beforehand it leaves a marker in each of those places and
must find it, in each of those forms. All that is removed again.

The memory of the worker and its egress process is not looked at: by nature they hold the secrets of running sessions.

Examples:
  paws audit secrets
  paws audit secrets --value-file - < the-real-key`

interface Options {
  host: string
  valueFile?: string
  json?: boolean
}

export const auditCommand: Register = (program, context) => {
  const audit = program.command('audit').summary('prove that secrets stay out').description('Looks for secrets.')
  withJson(audit.command('secrets').description('Uses made-up secrets here and looks for them everywhere.'))
    .option('--host <name>', 'where the made-up credentials are sent', 'example.com')
    .option('--value-file <path>', 'look for values of your own too: one a line, "-" for stdin')
    .addHelpText('after', help)
    .action((options: Options) => run(options, context))
}

async function run({ host, valueFile, json }: Options, { config, output }: Context): Promise<void> {
  const credentials = readCredentials(config.installFile)
  if (!credentials) {
    throw new Error(
      `There is no installation in ${config.dataDir}. Run this where "./paws up" runs; PAWS_DATA names its folder.`,
    )
  }
  const values = valueFile === undefined ? {} : valuesOf(await readText(valueFile))
  const steps = createSteps()
  const report = await steps.step('Audit', (show) =>
    auditSecrets({ config, credentials, client: createClient(credentials), host, values, onStep: show }),
  )
  if (json) output.json({ good: isGood(report), ...report })
  else show(report, host, output)
  if (!isGood(report)) throw new Exit(exitCodes.failed, verdict(report))
  if (!json) output.line(`No secret was found in ${report.places.filter(({ things }) => things > 0).length} places.`)
}

function valuesOf(text: string): Record<string, string> {
  const values = text.split('\n').filter(Boolean)
  const short = values.findIndex((value) => Buffer.byteLength(value) < shortestValue)
  if (values.length === 0) throw usageError('There is no value to look for.')
  if (short !== -1)
    throw usageError(`Value ${short + 1} is shorter than ${shortestValue} bytes: it would be found by chance.`)
  return Object.fromEntries(values.map((value, index) => [`your value ${index + 1}`, value]))
}

const columns: Columns<PlaceReport> = {
  PLACE: ({ place }) => place,
  MARKER: ({ marker, missing }) => {
    if (!marker) return 'none planted'
    return missing.length === 0 ? `found, in ${marker.length} forms` : `NOT FOUND: ${missing.join(' ')}`
  },
  SECRETS: ({ leaks, things }) => {
    if (things === 0) return 'not looked for'
    return leaks.length === 0 ? 'not found' : `FOUND ${leaks.length} times`
  },
  THINGS: ({ things }) => things,
  SIZE: ({ bytes }) => megabytes(bytes),
  'LOOKED THROUGH': ({ what }) => what,
}

function show(report: Report, host: string, output: Context['output']): void {
  output.table(report.places, columns, 'Nothing was looked at.')
  for (const { leaks } of report.places) {
    for (const { name, form, where } of leaks) output.line(`FOUND: ${name}, as ${form}, in ${where}`)
  }
  for (const note of report.notes) output.note(`! ${note}`)
  if (report.sent > 0)
    output.note(`The made-up credentials went out to ${host}, which answered ${report.sent} requests.`)
  output.note('Not looked at: the memory of the worker and its egress process, which hold secrets while sessions run.')
}

function verdict({ places }: Report): string {
  const leaking = places.filter(({ leaks }) => leaks.length > 0).map(({ place }) => place)
  if (leaking.length > 0) return `Secrets were found in: ${leaking.join(', ')}.`
  return 'The search did not see all of its own markers, so that it proves nothing.'
}
