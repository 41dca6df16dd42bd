import { constants } from 'node:os'
import type { Exit, Process, Sandbox } from './driver.ts'

const scriptPath = '/run/paws/script'
/** A put up to this size and the exec after it are sent in one go; the guest agent works in order. */
const pipelinedBytes = 256 * 1024

/** Runs a script by its `#!` line, or by bash. Its bytes go in as a file: nothing is spliced into a command. */
export async function startScript(sandbox: Sandbox, script: string, env: Record<string, string>): Promise<Process> {
  const bytes = Buffer.from(script)
  const stored = sandbox.put(scriptPath, bytes, { size: bytes.length, mode: 0o755 })
  if (bytes.length > pipelinedBytes) await stored
  const argv = script.startsWith('#!') ? [scriptPath] : ['/bin/bash', scriptPath]
  const process = sandbox.exec({ argv, env, cwd: '/workspace' })
  try {
    await stored
  } catch (error) {
    process.kill('SIGKILL')
    throw error
  }
  return process
}

export function exitCodeOf(exit: Exit): number {
  if ('exitCode' in exit) return exit.exitCode
  return 128 + (constants.signals[exit.signal as NodeJS.Signals] ?? 0)
}

/** The first signal, and SIGKILL when it had no effect for a while. @returns what takes the second one back */
export function endProcess(process: Process, first: NodeJS.Signals, graceMs = 5_000): () => void {
  process.kill(first)
  const timer = setTimeout(() => process.kill('SIGKILL'), graceMs)
  return () => clearTimeout(timer)
}
