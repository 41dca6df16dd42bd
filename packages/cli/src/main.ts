import { type CliConfig, readConfig } from './config.ts'
import { report } from './errors.ts'
import { createProgram } from './program.ts'

// Whoever reads the output may stop reading, like head(1): then there is nothing left to do, as for any program in a
// pipe. A command that has something to end first listens too.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code !== 'EPIPE') throw error
  if (process.stdout.listenerCount('error') === 1) process.exit(141)
})

let config: CliConfig | undefined
try {
  config = readConfig()
  await createProgram(config).parseAsync()
} catch (error) {
  process.exitCode = report(error, { json: ownArguments().includes('--json'), color: config?.color })
}

/** Those before "--": what follows belongs to the program in the sandbox. */
function ownArguments(): string[] {
  const end = process.argv.indexOf('--')
  return process.argv.slice(2, end === -1 ? undefined : end)
}
