import type { Duplex, Readable } from 'node:stream'
import type { Outlet } from './outlet.ts'

/** How a sandbox is kept apart from its host, weakest first. */
export type Isolation = 'process' | 'qemu/tcg' | 'qemu/kvm' | 'firecracker'

/** What one sandbox is made of. Nothing here is secret. */
export interface SandboxSpec {
  /** UUID of the session or build that it serves */
  id: string
  /** An unpacked snapshot: a directory that is only read */
  imageDir: string
  vcpus: number
  memoryMB: number
  diskMB: number
  /** Host name inside */
  hostname: string
}

/** One program to run inside. Every string may hold any bytes but NUL. */
export interface Command {
  /** Program and arguments; never a shell line */
  argv: string[]
  env: Record<string, string>
  cwd: string
  /** With it, the program gets a terminal, and its output comes as `stdout` */
  pty?: { rows: number; cols: number }
  /** Whether the caller will write to `stdin`; otherwise it reads end-of-file at once */
  stdin?: boolean
}

/** How a program ended: an exit code, or the name of the signal that killed it. */
export type Exit = { exitCode: number } | { signal: string }

/** A program running inside. Output that is not read holds back that program only. */
export interface Process {
  stdin: NodeJS.WritableStream
  stdout: Readable
  stderr: Readable
  /** Settles when the program has ended and its remaining output has been pushed; rejects with SandboxLost */
  exit: Promise<Exit>
  /** Sends to the program's whole process group */
  kill(signal: NodeJS.Signals): void
  resize(size: { rows: number; cols: number }): void
}

/** A running sandbox. Whatever it answers is hostile data. */
export interface Sandbox {
  readonly isolation: Isolation
  /** What leads out of it */
  readonly outlet: Outlet
  exec(command: Command): Process
  /** Writes a regular file, making missing parent directories; follows no link. `size` in bytes is announced first */
  put(path: string, content: Uint8Array | Readable, options: { size: number; mode?: number }): Promise<void>
  /** Reads a regular file; rejects with FileRefused for anything else, a link on the way, or more than `maxBytes` */
  get(path: string, options: { maxBytes: number }): Promise<{ size: number; content: Readable }>
  /** Opens a TCP connection to a port that something inside listens on */
  connect(port: number): Promise<Duplex>
  /** Resolves, with the reason, when the sandbox is gone, however that came about; never rejects */
  readonly gone: Promise<{ reason: string }>
  /** SIGTERM to every process inside, SIGKILL after `graceMs`; resolves once the whole tree and all it held are gone */
  stop(options?: { graceMs?: number }): Promise<void>
}

/** The one seam between paws and a kind of isolation. */
export interface Driver {
  readonly isolation: Isolation
  /** @param onOutlet gets what leads out as soon as that is known, while the sandbox still starts */
  start(spec: SandboxSpec, onOutlet?: (outlet: Outlet) => void): Promise<Sandbox>
  /** What this host can't enforce, in whole sentences; shown by `up` and `doctor` */
  readonly limitations: string[]
  /** Stops what is left and gives back slots, cgroups and mounts */
  close(): Promise<void>
}

/** The sandbox ended while something was still asked of it. */
export class SandboxLost extends Error {
  override name = 'SandboxLost'
}

/** The guest agent would not read or write that path. */
export class FileRefused extends Error {
  override name = 'FileRefused'
  readonly reason: 'not-found' | 'not-regular' | 'link' | 'too-large' | 'io'
  constructor(reason: FileRefused['reason'], message: string) {
    super(message)
    this.reason = reason
  }
}
