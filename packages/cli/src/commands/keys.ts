import type { ApiKey, NewApiKey, Scope } from '@paws/sdk'
import { allScopes } from '@paws/sdk'
import { Option } from 'commander'
import { type Context, orgOf, type Register, withJson } from '../context.ts'
import { ago, type Columns } from '../output.ts'
import { durationMs } from '../terms.ts'

interface KeyOptions {
  org?: string
  json?: boolean
}

const columns: Columns<ApiKey> = {
  ID: (key) => key.id,
  NAME: (key) => key.name,
  KEY: (key) => `${key.prefix}…${key.lastFour}`,
  STATE: stateOf,
  'LAST USED': (key) => ago(key.lastUsedAt) ?? 'never',
  SCOPES: (key) => (key.scopes.length === allScopes.length ? 'all' : key.scopes.join(' ')),
}

const help = `
Examples:
  paws keys create ci --scope sessions:write --scope sessions:read --expires 90d
  paws keys rotate KEY_ID --overlap 1h
  paws keys revoke KEY_ID

A key is shown once, when it is made. Scopes:
  ${allScopes.join('\n  ')}`

export const keysCommand: Register = (program, context) => {
  const keys = program
    .command('keys')
    .summary('make, list, rotate and revoke API keys')
    .description('Makes, lists, rotates and revokes API keys.')
    .addHelpText('after', help)
  const sub = (usage: string, description: string) =>
    withJson(keys.command(usage).description(description)).option(
      '--org <id>',
      "another organization than the key's own",
    )

  sub('create <name>', 'Makes an API key and shows it, once.')
    .addOption(new Option('--scope <scope...>', 'what it may do (default: what yours may)').choices(allScopes))
    .option('--expires <duration>', 'when it ends, like 90d (default: never)', durationMs)
    .action(async (name: string, { org, scope, expires, json }: KeyOptions & { scope?: Scope[]; expires?: number }) => {
      const client = context.client()
      const expiresAt = expires === undefined ? undefined : new Date(Date.now() + expires).toISOString()
      const key = await client.keys.create(await orgOf(client, org), { name, scopes: scope, expiresAt })
      showNew(key, json, context)
    })

  withJson(keys.command('list', { isDefault: true }).description('Lists API keys, newest first.'))
    .option('--org <id>', "another organization than the key's own")
    .action(async ({ org, json }: KeyOptions) => {
      const client = context.client()
      const rows = await Array.fromAsync(client.keys.list(await orgOf(client, org)))
      if (json) context.output.json({ apiKeys: rows })
      else context.output.table(rows, columns, 'There are no API keys.')
    })

  sub('revoke <id>', 'Ends an API key at once.').action(async (id: string, { org, json }: KeyOptions) => {
    const client = context.client()
    await client.keys.revoke(await orgOf(client, org), id)
    if (json) context.output.json({ id, revoked: true })
    else context.output.line(`${id} is revoked.`)
  })

  sub('rotate <id>', 'Makes a key in the place of another, which works on for a while.')
    .option('--overlap <duration>', 'how long the old one still works (default: 1d)', durationMs)
    .action(async (id: string, { org, overlap, json }: KeyOptions & { overlap?: number }) => {
      const client = context.client()
      showNew(await client.keys.rotate(await orgOf(client, org), id, { overlapMs: overlap }), json, context)
    })
}

/** The key alone on stdout, so that it can be piped into where it belongs. */
function showNew(key: NewApiKey, json: boolean | undefined, { output }: Context): void {
  if (!json) output.note(`API key "${key.name}" (${key.id}). It is shown only now:`)
  if (json) output.json(key)
  else output.line(key.key)
}

function stateOf({ revokedAt, expiresAt }: ApiKey): string {
  if (revokedAt) return 'revoked'
  if (!expiresAt) return 'active'
  return Date.parse(expiresAt) < Date.now() ? 'expired' : `until ${expiresAt.slice(0, 16).replace('T', ' ')} UTC`
}
