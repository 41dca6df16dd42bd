import { spawn } from 'node:child_process'
import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { clone } from '../clone.ts'
import type { Context, Register } from '../context.ts'

interface WorkerOptions {
  join: string
  token?: string
  tokenFile?: string
}

const help = `
Examples:
  paws fleet token                                      on a machine with the operator's key
  paws worker --join https://paws.example.com --token TOKEN

The token is used up by the first start; after that the worker has a credential of its own, in PAWS_DATA, and starts
without. It runs until it is told to stop, and then waits for its sessions. --token-file keeps the token out of the
list of processes.`

export const workerCommand: Register = (program, context) => {
  program
    .command('worker')
    .summary('run sandboxes on this machine for a control plane elsewhere')
    .description('Runs sandboxes on this machine for a control plane elsewhere. Dials out only; needs no open port.')
    .requiredOption('--join <url>', 'URL of the control plane', context.config.url)
    .option('--token <token>', 'enrolment token, for the first start')
    .option('--token-file <path>', 'the same, read from a file')
    .addHelpText('after', help)
    .action((options: WorkerOptions) => work(options, context))
}

async function work({ join: url, token, tokenFile }: WorkerOptions, { config }: Context): Promise<void> {
  const dataDir = join(config.dataDir, 'worker')
  // Ids that sandboxes have outside must get through it, to what is unpacked there.
  await mkdir(dataDir, { recursive: true, mode: 0o711 })
  const env: NodeJS.ProcessEnv = {
    ...config.env,
    PAWS_URL: url,
    PAWS_DATA: dataDir,
    PAWS_GUEST_AGENT: clone.guestAgent,
    PAWS_SLOT_HELPER: clone.slotHelper,
    ...(token !== undefined && { PAWS_ENROLMENT_TOKEN: token }),
    ...(tokenFile !== undefined && { PAWS_ENROLMENT_TOKEN_FILE: tokenFile }),
  }
  // A user's own key is none of a worker's business.
  delete env.PAWS_KEY
  process.exitCode = await runToEnd(env)
}

/** Hands the first signals on and lets the worker end in its own time. */
function runToEnd(env: NodeJS.ProcessEnv): Promise<number> {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [clone.worker], { env, stdio: 'inherit' })
    const pass = (signal: NodeJS.Signals) => child.kill(signal)
    // Ctrl-C at a terminal reaches the child by itself; this process only waits for it then.
    process
      .on('SIGTERM', pass)
      .on('SIGHUP', pass)
      .on('SIGINT', () => undefined)
    child.on('error', (cause) => reject(new Error(`The worker could not be started: ${cause.message}`, { cause })))
    child.on('exit', (code, signal) => resolve(code ?? (signal === 'SIGINT' ? 130 : 143)))
  })
}
