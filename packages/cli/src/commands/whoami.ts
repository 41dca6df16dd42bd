import { type Register, withJson } from '../context.ts'

export const whoamiCommand: Register = (program, context) => {
  withJson(
    program
      .command('whoami')
      .summary('say whose key is used, and what it may do')
      .description('Says whose key is used, where, and what it may do.'),
  ).action(async ({ json }: { json?: boolean }) => {
    const { url } = context.credentials()
    const { organization, keyId, scopes } = await context.client().whoami()
    if (json) return context.output.json({ url, organization, keyId, scopes })
    context.output.card({
      url,
      organization: `${organization.name} (${organization.id})${organization.operator ? ', the operator' : ''}`,
      key: keyId,
      scopes: scopes.join(' '),
    })
  })
}
