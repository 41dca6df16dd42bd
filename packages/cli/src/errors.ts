import { PawsError } from '@paws/sdk'
import { CommanderError } from 'commander'
import { painter } from './output.ts'

/** Exit codes of all commands. `run` and `exec` end with the workload's own instead, and with 124, 125 or 130 besides. */
export const exitCodes = {
  failed: 1,
  usage: 2,
  /** The session ran past its time, as timeout(1) has it */
  timeout: 124,
  /** paws itself could not do it, as opposed to the workload */
  notRun: 125,
  cancelled: 130,
} as const

/** Ends a command with an exit code, with a message or without. */
export class Exit extends Error {
  override name = 'Exit'
  readonly code: number
  constructor(code: number, message = '', options?: ErrorOptions) {
    super(message, options)
    this.code = code
  }
}

/** What was asked can't be done as written: shown with a hint at the help. */
export function usageError(message: string): Exit {
  return new Exit(exitCodes.usage, message)
}

/** Says on stderr what went wrong and what to do, and answers the exit code. */
export function report(error: unknown, { json, color }: { json: boolean; color: boolean | undefined }): number {
  // Commander has printed its message, or the help that was asked for.
  if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : exitCodes.usage
  const paint = painter({ color }, process.stderr)
  const code = error instanceof Exit ? error.code : exitCodes.failed
  if (json) process.stderr.write(`${JSON.stringify({ error: asJson(error) })}\n`)
  else for (const line of linesOf(error)) process.stderr.write(`${paint('red', 'paws:')} ${line}\n`)
  return code
}

/** Runs a piece of work whose failure is paws' own and must not look like the workload's exit code. */
export async function notTheWorkloads<T>(work: Promise<T>): Promise<T> {
  try {
    return await work
  } catch (error) {
    if (error instanceof Exit) throw error
    throw new Exit(exitCodes.notRun, messageOf(error), { cause: error })
  }
}

function linesOf(error: unknown): string[] {
  const refusal = refusalIn(error)
  const message = messageOf(error)
  if (!refusal) return message ? [message] : []
  const details = (refusal.details ?? [])
    .filter((detail) => !message.includes(detail.message))
    .map(({ path, message }) => (path ? `  ${path}: ${message}` : `  ${message}`))
  const hint = hints[refusal.code]
  return [
    message,
    ...details,
    ...(hint ? [hint] : []),
    // Its log has the cause of what is the server's fault; a refusal explains itself.
    ...(refusal.requestId && (refusal.status ?? 0) >= 500 ? [`(request ${refusal.requestId})`] : []),
  ]
}

const hints: Partial<Record<PawsError['code'], string>> = {
  UNAUTHORIZED: 'Set PAWS_KEY to another, or run "paws login".',
  FORBIDDEN: '"paws whoami" shows what your key may do.',
}

const fileErrors: Record<string, string> = {
  ENOENT: 'There is no such file or folder here.',
  EACCES: 'You may not read or write it.',
  EISDIR: 'It is a folder, not a file.',
  ENOSPC: 'The disk is full.',
  EROFS: 'It is on a read-only file system.',
}

function asJson(error: unknown) {
  const refusal = refusalIn(error)
  if (!refusal) return { code: 'CLI_ERROR', message: messageOf(error) }
  const { code, message, status, requestId, details } = refusal
  return { code, message, status, requestId, details }
}

function refusalIn(error: unknown): PawsError | undefined {
  if (error instanceof PawsError) return error
  return error instanceof Exit && error.cause instanceof PawsError ? error.cause : undefined
}

function messageOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error)
  const { code, path } = error as NodeJS.ErrnoException
  const reason = path !== undefined && fileErrors[code ?? '']
  return reason ? `${path}: ${reason}` : error.message
}
