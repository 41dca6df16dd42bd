import { Command } from 'commander'
import pkg from '../package.json' with { type: 'json' }
import { auditCommand } from './audit/index.ts'
import { completionCommand } from './commands/completion.ts'
import { cpCommand } from './commands/cp.ts'
import { egressCommand } from './commands/egress.ts'
import { execCommand } from './commands/exec.ts'
import { fleetCommand } from './commands/fleet.ts'
import { keysCommand } from './commands/keys.ts'
import { loginCommand } from './commands/login.ts'
import { logsCommand } from './commands/logs.ts'
import { orgsCommand } from './commands/orgs.ts'
import { runCommand } from './commands/run.ts'
import { secretsCommand } from './commands/secrets.ts'
import { sessionsCommand } from './commands/sessions.ts'
import { snapshotsCommand } from './commands/snapshots.ts'
import { whoamiCommand } from './commands/whoami.ts'
import { workerCommand } from './commands/worker.ts'
import type { CliConfig } from './config.ts'
import { createContext, type Register } from './context.ts'
import { doctorCommand } from './doctor/index.ts'
import { upCommand } from './up/index.ts'

/** In the order in which help lists them. */
const commands: Record<string, Register[]> = {
  'Sessions:': [runCommand, sessionsCommand, logsCommand, egressCommand, execCommand, cpCommand],
  'Around them:': [snapshotsCommand, secretsCommand, keysCommand, orgsCommand, fleetCommand],
  'This machine:': [
    (program, { config }) => upCommand(program, config),
    (program, { config }) => doctorCommand(program, config),
    auditCommand,
    workerCommand,
    loginCommand,
    whoamiCommand,
    completionCommand,
  ],
}

const help = `
Which control plane: PAWS_URL and PAWS_KEY from the environment, else what "paws login" stored, else the one that
"./paws up" has left on this machine.

Exit codes: 0 done, 1 refused or failed, 2 wrongly called; "run" and "exec" have their own, see their help.`

export function createProgram(config: CliConfig): Command {
  const program = new Command('paws')
    .description('Runs AI agents and scripts in throw-away sandboxes.')
    .version(pkg.version)
    .showSuggestionAfterError()
    .showHelpAfterError('("paws --help" lists what there is)')
    .exitOverride()
    .helpCommand(false)
    .configureHelp({ sortSubcommands: false })
    .addHelpText('after', help)
  const context = createContext(config)
  for (const [group, registers] of Object.entries(commands)) {
    program.commandsGroup(group)
    for (const register of registers) register(program, context)
  }
  for (const command of program.commands) pointAtHelp(command, 'paws')
  return program
}

/**
 * Each command points at its own help. A family with a default member takes an unknown one's name for an argument of
 * that: here it is refused as what it is.
 */
function pointAtHelp(command: Command, parent: string): void {
  const name = `${parent} ${command.name()}`
  command.showHelpAfterError(`("${name} --help" says how it is called)`)
  for (const member of command.commands) {
    pointAtHelp(member, name)
    if (command.commands.length < 2) continue
    member.allowExcessArguments()
    member.hook('preAction', () => {
      if (member.args.length <= member.registeredArguments.length || member.registeredArguments.at(-1)?.variadic) return
      const [first = ''] = command.args
      const known = command.commands.some((one) => one.name() === first || one.aliases().includes(first))
      command.error(
        known
          ? `error: too many arguments for '${name} ${member.name()}'`
          : `error: unknown command '${name} ${first}'`,
      )
    })
  }
}
