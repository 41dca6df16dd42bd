import { text } from 'node:stream/consumers'
import { isCancel, password } from '@clack/prompts'
import type { Secret } from '@paws/sdk'
import { Option } from 'commander'
import { type Register, withJson } from '../context.ts'
import { Exit, exitCodes, usageError } from '../errors.ts'
import { hosts } from '../network-terms.ts'
import { ago, type Columns } from '../output.ts'

type Json = { json?: boolean }
type SetOptions = Json & { host?: string[]; anyHost?: boolean }

const columns: Columns<Secret> = {
  NAME: (secret) => secret.name,
  HOSTS: (secret) => secret.hosts?.join(' ') ?? 'any',
  CHANGED: (secret) => ago(secret.updatedAt),
  CREATED: (secret) => ago(secret.createdAt),
}

const help = `
Examples:
  paws secrets set ANTHROPIC_KEY --host api.anthropic.com        asks for the value
  paws secrets set ANTHROPIC_KEY < key.txt                       a new value, for the same hosts as before
  paws run --credential 'api.anthropic.com: x-api-key=secret:ANTHROPIC_KEY' --file agent.sh

The value is asked for, or read from stdin; it is no argument, since others could read it in the list of processes.
Bind it to the hosts that need it: without --host, whoever may start sessions could send it to a server of their own.
No sandbox ever holds it: it is added to requests on their way out. A session keeps the value that it was created with.`

export const secretsCommand: Register = (program, context) => {
  const { output } = context
  const secrets = program
    .command('secrets')
    .summary('store what sandboxes may use and never see')
    .description('Stored secrets: what sandboxes may use and never see.')
    .addHelpText('after', help)

  withJson(
    secrets.command('list', { isDefault: true }).description('Lists their names; no value is ever shown.'),
  ).action(async ({ json }: Json) => {
    const rows = await context.client().secrets.list()
    if (json) output.json({ secrets: rows })
    else output.table(rows, columns, 'There are no secrets. "paws secrets set NAME" stores one.')
  })

  withJson(
    secrets
      .command('set <name>')
      .description('Stores a secret, in the place of one that was there. Its value comes from stdin.')
      .option(
        '--host <host>',
        'sessions may name it for these only; may be given again (default: as before, or any)',
        hosts,
      )
      .addOption(new Option('--any-host', 'for any host, whatever it was bound to').conflicts('host')),
  ).action(async (name: string, { host, anyHost, json }: SetOptions) => {
    if (!secretName.test(name)) {
      throw usageError('A name is a letter, then letters, digits, "_", "." or "-", at most 100 of them.')
    }
    const client = context.client()
    const secret = await client.secrets.put(name, await readValue(name), { hosts: anyHost ? null : host })
    if (json) output.json(secret)
    else if (secret.hosts) output.line(`${secret.name} is stored, for ${secret.hosts.join(' ')} only.`)
    else {
      output.line(`${secret.name} is stored.`)
      output.note('Sessions may name it for any host: --host binds it to those that need it.')
    }
  })

  withJson(secrets.command('delete <name>').alias('rm').description('Deletes a secret.')).action(
    async (name: string, { json }: Json) => {
      await context.client().secrets.delete(name)
      if (json) output.json({ name, deleted: true })
      else output.line(`${name} is deleted. Sessions that were created with it keep their copy until they end.`)
    },
  )
}

const secretName = /^[A-Za-z][A-Za-z0-9_.-]{0,99}$/

async function readValue(name: string): Promise<string> {
  const given = process.stdin.isTTY ? await password({ message: `Value of ${name}` }) : await text(process.stdin)
  if (isCancel(given)) throw new Exit(exitCodes.cancelled, 'Nothing was stored.')
  // What ends the line of a file or of echo is not meant.
  const value = given.replace(/\r?\n$/, '')
  if (value === '') throw usageError('The value is empty: give it through stdin, as "paws secrets --help" shows.')
  return value
}
