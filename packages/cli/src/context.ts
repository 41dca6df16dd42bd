import { readFile } from 'node:fs/promises'
import { text } from 'node:stream/consumers'
import { createClient, type PawsClient } from '@paws/sdk'
import type { Command } from 'commander'
import { type CliConfig, type Credentials, findCredentials } from './config.ts'
import { createOutput, type Output } from './output.ts'

/** What every command is given. */
export interface Context {
  config: CliConfig
  output: Output
  /** @throws when no control plane is known, saying what to do */
  client(): PawsClient
  credentials(): Credentials
}

/** Adds one command, or a family of them, to the program. One file each in commands/. */
export type Register = (program: Command, context: Context) => void

export function createContext(config: CliConfig): Context {
  return {
    config,
    output: createOutput(config),
    credentials: () => findCredentials(config),
    client: () => createClient(findCredentials(config)),
  }
}

/** Gives a command the option that all have. */
export function withJson(command: Command): Command {
  return command.option('--json', 'print the result as JSON')
}

/** The organization that the key belongs to, unless another was named. */
export async function orgOf(client: PawsClient, named: string | undefined): Promise<string> {
  return named ?? (await client.whoami()).organization.id
}

/** Reads a file, or stdin for `-`. */
export async function readText(file: string): Promise<string> {
  if (file === '-') return text(process.stdin)
  return readFile(file, 'utf8')
}
