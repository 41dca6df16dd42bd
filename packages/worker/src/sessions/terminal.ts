import { once } from 'node:events'
import { encodeJsonFrame, frameDecoder, type TunnelExit, type TunnelTerminal } from '@paws/api'
import { endProcess, exitCodeOf } from '../sandbox/command.ts'
import { pump } from './exec.ts'
import { errorOf, type SessionRequest } from './request.ts'

/** A login shell on a terminal: frames in both directions. Whoever leaves hangs up. */
export async function openTerminal({ stream, sandbox, env, query }: SessionRequest): Promise<void> {
  const size = { rows: Number(query.get('rows')), cols: Number(query.get('cols')) }
  const process = sandbox.exec({
    argv: ['/bin/bash', '-l'],
    env,
    cwd: '/workspace',
    pty: size,
    stdin: true,
  })
  stream.respond({ ':status': 200 })
  process.stdin.on('error', () => undefined)
  const type = async () => {
    const decode = frameDecoder()
    for await (const bytes of stream) {
      for (const { kind, payload } of decode(bytes as Buffer)) {
        if (kind === 'resize') process.resize(JSON.parse(String(payload)) as TunnelTerminal)
        else if (!process.stdin.write(payload)) await once(process.stdin, 'drain')
      }
    }
  }
  let relent: (() => void) | undefined
  const hangUp = () => {
    relent = endProcess(process, 'SIGHUP')
  }
  // Either way it is over: the other end finished, or the stream broke.
  const typed = type().then(hangUp, hangUp)
  try {
    await pump(process.stdout, stream, 'data')
    const exit: TunnelExit = { exitCode: exitCodeOf(await process.exit) }
    stream.end(encodeJsonFrame('exit', exit))
  } catch (error) {
    if (!stream.destroyed) stream.end(encodeJsonFrame('error', errorOf(error)))
    else await process.exit.catch(() => undefined)
  }
  await typed
  relent?.()
}
