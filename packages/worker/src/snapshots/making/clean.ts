import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { exitCodeOf, startScript } from '../../sandbox/command.ts'
import { type Command, FileRefused, type Sandbox } from '../../sandbox/driver.ts'
import { parsePackages } from './assemble.ts'
import { eachLine, type OnLine } from './lines.ts'

/** The system's store of certificates. */
const bundlePath = '/etc/ssl/certs/ca-certificates.crt'
const bundleLimitBytes = 4 * 1024 * 1024
/** A manifest holds them all. */
const packagesLimitBytes = 512 * 1024

const env: Command['env'] = {}

export async function readBundle(sandbox: Sandbox): Promise<Buffer> {
  const { content } = await sandbox.get(bundlePath, { maxBytes: bundleLimitBytes })
  return Buffer.concat(await content.toArray())
}

/** Ends what the setup left running, and takes out what an image must not have. */
export async function cleanUp(sandbox: Sandbox, bundle: Buffer, onLine: OnLine): Promise<void> {
  // Everything but this shell and the guest agent, in one call: nothing can start another meanwhile.
  await ended(sandbox, ['/bin/bash', '-c', 'kill -KILL -1 2> /dev/null; exit 0'], onLine)
  // Before the system's own tool is asked, which makes it anew where the image has that tool.
  await sandbox.put(bundlePath, bundle, { size: bundle.length, mode: 0o644 }).catch(async (error: unknown) => {
    if (!(error instanceof FileRefused)) throw error
    await onLine(`${bundlePath} is left as the setup made it: ${error.message}`)
  })
  const script = await readFile(join(import.meta.dirname, 'clean.sh'), 'utf8')
  await ended(sandbox, script, onLine)
}

/** Versions of the Debian packages inside, as the image tells them; none where it has no dpkg. */
export async function readPackages(sandbox: Sandbox): Promise<Record<string, string>> {
  const lines: string[] = []
  let bytes = 0
  const argv = ['/usr/bin/dpkg-query', '--show', `--showformat=\${Package}\\t\${Version}\\n`]
  // Without dpkg that fails, and what it says is of no interest.
  await ended(sandbox, argv, (line) => {
    bytes += line.length + 1
    if (bytes <= packagesLimitBytes && /^[a-z0-9][a-z0-9.+-]*\t\S+$/.test(line)) lines.push(line)
  })
  return parsePackages(lines.join('\n'))
}

/** Runs a script, or a program, and hands over what it says. @returns its exit code */
export async function ended(sandbox: Sandbox, what: string | string[], onLine: OnLine): Promise<number> {
  const started =
    typeof what === 'string' ? startScript(sandbox, what, env) : sandbox.exec({ argv: what, env, cwd: '/' })
  const process = await started
  const output = Promise.all([eachLine(process.stdout, onLine), eachLine(process.stderr, onLine)])
  // It is awaited only after the exit, and may fail before that.
  output.catch(() => undefined)
  const exitCode = exitCodeOf(await process.exit)
  await output
  return exitCode
}
