import type { Command } from 'commander'
import type { CliConfig } from '../config.ts'
import { type Installation, up } from './up.ts'

const help = `
Everything is kept in PAWS_DATA (as root /var/lib/paws, else ~/.local/share/paws): the database, snapshots, logs/, and
credentials.json with the URL and the API key. Other commands on this machine find those two there by themselves, and
every start prints them again. PORT and HOST say where it listens (127.0.0.1:8080); with DATABASE_URL your own
PostgreSQL server is used. Ctrl-C waits for running sessions and stops all; a second one doesn't wait; a third kills.`

/** Registers \`up\`, which runs until it is told to stop. */
export function upCommand(program: Command, config: CliConfig): void {
  program
    .command('up')
    .summary('start PostgreSQL, a control plane and a worker on this machine')
    .description('Starts PostgreSQL, a control plane and a worker on this machine, and keeps them running.')
    .option('--json', 'print one line {"url","apiKey"} when ready, and nothing else on stdout')
    .addHelpText('after', help)
    .action(async ({ json }: { json?: boolean }) => {
      const began = performance.now()
      const stop = new AbortController()
      const hurry = new EventTarget()
      const onSignal = () => {
        if (stop.signal.aborted) hurry.dispatchEvent(new Event('hurry'))
        else stop.abort()
      }
      for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(name, onSignal)
      const onReady = (installation: Installation) => {
        const { url, apiKey } = installation
        const text = json ? JSON.stringify({ url, apiKey }) : welcome(installation, config, performance.now() - began)
        process.stdout.write(`${text}\n`)
      }
      await up(config, { onReady, stop: stop.signal, hurry })
    })
}

function welcome({ url, apiKey, isolation, limitations }: Installation, config: CliConfig, tookMs: number): string {
  const body = '{"snapshot":"minimal","workload":{"type":"script","script":"echo hello && uname -a"}}'
  return `
paws is running, ready after ${(tookMs / 1000).toFixed(1)} s. Both are kept in ${config.installFile}:

  URL      ${url}
  API key  ${apiKey}

Your first request, then its output by the sessionId of the answer:

  export PAWS_URL=${url} PAWS_KEY=${apiKey}
  curl -s -X POST "$PAWS_URL/v1/sessions" -H "Authorization: Bearer $PAWS_KEY" \\
    -H "Content-Type: application/json" -d '${body}'
  curl -s "$PAWS_URL/v1/sessions/$SESSION_ID" -H "Authorization: Bearer $PAWS_KEY"

Or: ./paws run 'echo hello'      The API: ${url}/reference

Isolation of sandboxes here: ${isolation}.${limitations.length > 0 ? ' This host can’t enforce all limits:' : ''}
${limitations.map((limitation) => `  - ${limitation}\n`).join('')}
Ctrl-C stops everything.
`
}
