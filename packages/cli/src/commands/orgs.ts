import type { Organization } from '@paws/sdk'
import { orgOf, type Register, withJson } from '../context.ts'
import { ago, type Columns } from '../output.ts'
import { durationMs } from '../terms.ts'

type Json = { json?: boolean }

const columns: Columns<Organization> = {
  ID: (org) => org.id,
  NAME: (org) => org.name,
  OPERATOR: (org) => (org.operator ? 'yes' : ''),
  CREATED: (org) => ago(org.createdAt),
}

export const orgsCommand: Register = (program, context) => {
  const orgs = program
    .command('orgs')
    .summary('list, make and rename organizations')
    .description('Organizations: the operator lists and makes them, everybody sees and renames their own.')
    .addHelpText(
      'after',
      '\nExamples:\n  paws orgs create acme\n  paws orgs show\n  paws orgs webhook-secret --rotate --overlap 1h',
    )
  const { output } = context

  withJson(orgs.command('list', { isDefault: true }).description('Lists all organizations (operator).')).action(
    async ({ json }: Json) => {
      const rows = await Array.fromAsync(context.client().organizations.list())
      if (json) output.json({ organizations: rows })
      else output.table(rows, columns, 'There are no organizations.')
    },
  )

  withJson(
    orgs.command('create <name>').description('Makes an organization and shows its first API key, once (operator).'),
  ).action(async (name: string, { json }: Json) => {
    const made = await context.client().organizations.create(name)
    if (json) return output.json(made)
    output.note(`Organization "${made.name}" (${made.id}). Its first API key is shown only now:`)
    output.line(made.apiKey.key)
  })

  withJson(orgs.command('show').argument('[id]', 'default: your own').description('Shows an organization.')).action(
    async (id: string | undefined, { json }: Json) => {
      const client = context.client()
      const org = await client.organizations.get(await orgOf(client, id))
      if (json) output.json(org)
      else output.card({ id: org.id, name: org.name, operator: org.operator ? 'yes' : 'no', created: org.createdAt })
    },
  )

  withJson(orgs.command('rename <name>').description('Renames your own organization.')).action(
    async (name: string, { json }: Json) => {
      const client = context.client()
      const org = await client.organizations.update(await orgOf(client, undefined), { name })
      if (json) output.json(org)
      else output.line(`${org.id} is now called "${org.name}".`)
    },
  )

  withJson(
    orgs
      .command('rotate-data-key')
      .description('Replaces the key that seals your secrets, and seals them again with the new one.'),
  ).action(async ({ json }: Json) => {
    const client = context.client()
    const done = await client.organizations.rotateDataKey(await orgOf(client, undefined))
    if (json) output.json(done)
    else output.line(`Data key ${done.version} is in use; ${done.resealed} secrets were sealed again.`)
  })

  withJson(orgs.command('webhook-secret').description('Shows the secret that signs callbacks, or replaces it.'))
    .option('--rotate', 'replace it; the old one signs beside it for a while')
    .option('--overlap <duration>', 'for how long (default: 1d)', durationMs)
    .action(async ({ rotate, overlap, json }: Json & { rotate?: boolean; overlap?: number }) => {
      const client = context.client()
      const org = await orgOf(client, undefined)
      const { organizations } = client
      const found = rotate
        ? await organizations.rotateWebhookSecret(org, { overlapMs: overlap })
        : await organizations.webhookSecret(org)
      if (json) return output.json(found)
      output.line(found.secret)
      if (found.previous) output.note(`The one before signs too until ${found.previous.validUntil}.`)
    })
}
