import { constants } from 'node:os'
import { Writable } from 'node:stream'
import type { Command, Exit, Process } from '../driver.ts'
import { encodeFrame, frameType, guestBytes, maxStringsBytes, ProtocolBreach } from './frames.ts'
import type { GuestLink } from './link.ts'
import { GuestRefused, openInlet, openOutlet, outletReadable } from './streams.ts'

const signalNames = new Map(Object.entries(constants.signals).map(([name, number]) => [number, name]))

/** Starts a program; see `Sandbox.exec`. Throws for a command that no program could be given. */
export function execInGuest(link: GuestLink, command: Command): Process {
  const strings = commandStrings(command)
  const { promise: exit, resolve, reject } = Promise.withResolvers<Exit>()
  // Not everybody waits for the end; a lost sandbox must not end the worker too.
  exit.catch(() => undefined)
  const id = link.open({
    name: 'exec',
    data: (which, bytes) => outlet(which).data(bytes),
    end: (which) => outlet(which).end(),
    credit: (bytes) => inlet.credit(bytes),
    exit: (how) => {
      if (!out.ended || !(err.ended || command.pty)) throw new ProtocolBreach('an exit before the end of the output')
      inlet.finish()
      resolve('exitCode' in how ? how : { signal: signalNames.get(how.signalNumber) ?? `SIG${how.signalNumber}` })
    },
    error: (_, text) => fail(new GuestRefused(`The guest agent could not start ${command.argv[0]}: ${text}`)),
    lost: (error) => fail(error),
  })
  const inlet = openInlet(link, id)
  const out = openOutlet(link, id, 1, () => stdout)
  const err = openOutlet(link, id, 2, () => stderr)
  const stdout = outletReadable(out)
  const stderr = outletReadable(err)
  const stdin = new Writable({
    write: (chunk: Buffer, _, callback) => inlet.write(chunk, callback),
    final: (callback) => {
      endInput()
      callback()
    },
  })

  // A terminal has no end of its own; its line discipline takes ^D for one.
  function endInput() {
    if (command.pty) inlet.write(Buffer.of(4), () => undefined)
    else inlet.end()
  }
  function outlet(which: number) {
    if (which === 1) return out
    if (which === 2 && !command.pty) return err
    throw new ProtocolBreach(`output on stream ${which} of exec`)
  }
  function fail(error: Error) {
    inlet.finish()
    stdout.destroy(error)
    stderr.destroy(error)
    reject(error)
  }
  function tell(type: number, ...fields: (readonly [1 | 2, number])[]) {
    if (link.isOpen(id)) link.send(encodeFrame(type, id, ...fields))
  }

  link.send(execFrame(id, command, strings))
  if (!command.stdin) endInput()
  if (command.pty) stderr.push(null)
  return {
    stdin,
    stdout,
    stderr,
    exit,
    kill: (signal) => tell(frameType.signal, [1, constants.signals[signal]]),
    resize: ({ rows, cols }) => tell(frameType.resize, [2, rows], [2, cols]),
  }
}

// Working directory, arguments, environment, each ended by NUL.
function commandStrings({ argv, env, cwd }: Command): Buffer {
  if (argv.length === 0) throw new TypeError('A command needs at least the name of its program')
  const strings = [
    guestBytes(cwd, 'The working directory'),
    ...argv.map((argument) => guestBytes(argument, 'An argument')),
    ...Object.entries(env).map(([name, value]) => guestBytes(`${name}=${value}`, `The variable ${name}`)),
  ]
  const nul = Buffer.of(0)
  const joined = Buffer.concat(strings.flatMap((bytes) => [bytes, nul]))
  if (joined.length > maxStringsBytes) throw new RangeError('Arguments and environment are larger than 8 MB')
  return joined
}

function execFrame(id: number, { argv, env, pty }: Command, strings: Buffer): Buffer {
  const counts = [[4, argv.length] as const, [4, Object.keys(env).length] as const]
  const size = [[2, pty?.rows ?? 0] as const, [2, pty?.cols ?? 0] as const]
  return encodeFrame(frameType.exec, id, [1, pty ? 1 : 0], ...counts, ...size, strings)
}
