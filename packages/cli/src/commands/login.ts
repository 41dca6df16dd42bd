import { existsSync } from 'node:fs'
import { mkdir, rm } from 'node:fs/promises'
import { dirname } from 'node:path'
import { text } from 'node:stream/consumers'
import { isCancel, password, text as prompt } from '@clack/prompts'
import { createClient } from '@paws/sdk'
import type { Credentials } from '../config.ts'
import { type Context, type Register, withJson } from '../context.ts'
import { Exit, exitCodes, usageError } from '../errors.ts'
import { writePrivately } from '../private-file.ts'

const help = `
Examples:
  paws login --url https://paws.example.com
  paws login --url https://paws.example.com < key.txt

The key is asked for, or read from stdin; it is no option, since others could read it in the list of processes.
PAWS_URL and PAWS_KEY in the environment win over what is stored here.`

export const loginCommand: Register = (program, context) => {
  const { config, output } = context
  withJson(
    program
      .command('login')
      .summary('store the URL and API key of a control plane')
      .description('Stores the URL and the API key of a control plane, after trying them.'),
  )
    .option('--url <url>', 'where it is', config.url)
    .addHelpText('after', help)
    .action(async ({ url, json }: { url?: string; json?: boolean }) => {
      const credentials = process.stdin.isTTY ? await ask(url) : await read(url)
      const { organization, scopes } = await createClient(credentials).whoami()
      await store(context, credentials)
      if (json) output.json({ url: credentials.url, organization, scopes })
      else output.line(`Logged in to ${credentials.url} as "${organization.name}". Kept in ${config.loginFile}.`)
    })

  withJson(
    program
      .command('logout')
      .summary('forget what login stored')
      .description('Forgets what "paws login" stored. The key itself stays valid.'),
  ).action(async ({ json }: { json?: boolean }) => {
    const stored = existsSync(config.loginFile)
    await rm(config.loginFile, { force: true })
    if (json) output.json({ removed: stored ? config.loginFile : null })
    else output.line(stored ? `Removed ${config.loginFile}.` : 'Nothing was stored.')
  })
}

async function ask(url: string | undefined): Promise<Credentials> {
  const where = url ?? (await prompt({ message: 'URL of the control plane', placeholder: 'http://localhost:8080' }))
  if (isCancel(where)) throw new Exit(exitCodes.cancelled, 'Nothing was stored.')
  const apiKey = await password({ message: 'API key' })
  if (isCancel(apiKey)) throw new Exit(exitCodes.cancelled, 'Nothing was stored.')
  return checked(where, apiKey)
}

async function read(url: string | undefined): Promise<Credentials> {
  if (!url) throw usageError('Where is it? Give --url, or set PAWS_URL.')
  return checked(url, await text(process.stdin))
}

function checked(url: string, apiKey: string): Credentials {
  if (apiKey.trim() === '') throw usageError('The API key is empty.')
  return { url: url.trim(), apiKey: apiKey.trim() }
}

async function store({ config }: Context, credentials: Credentials): Promise<void> {
  await mkdir(dirname(config.loginFile), { recursive: true, mode: 0o700 })
  await writePrivately(config.loginFile, `${JSON.stringify(credentials)}\n`)
}
