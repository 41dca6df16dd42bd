import { readFile } from 'node:fs/promises'
import { setTimeout as sleep } from 'node:timers/promises'

/** A process that is told from a later one with the same id by when it began. */
export interface ProcessMark {
  name: string
  pid: number
  /** In clock ticks since the machine started */
  startTime: string
}

export async function markProcess(name: string, pid: number): Promise<ProcessMark | undefined> {
  const startTime = await startTimeOf(pid)
  return startTime === undefined ? undefined : { name, pid, startTime }
}

/**
 * Waits for the processes of an `up` that was killed: the kernel has asked them to end, and they may still be at it.
 * Those that take too long are asked once more, then killed.
 */
export async function endLeftovers(marks: ProcessMark[], patienceMs = 10_000): Promise<void> {
  for (const signal of ['SIGTERM', 'SIGKILL', undefined] as const) {
    for (const deadline = Date.now() + patienceMs; Date.now() < deadline; await sleep(50)) {
      if ((await stillThere(marks)).length === 0) return
    }
    for (const { pid } of signal ? await stillThere(marks) : []) kill(pid, signal)
  }
  const names = (await stillThere(marks)).map(({ name, pid }) => `${name} (pid ${pid})`)
  throw new Error(`Of an earlier run these can't be ended: ${names.join(', ')}.`)
}

async function stillThere(marks: ProcessMark[]): Promise<ProcessMark[]> {
  const times = await Promise.all(marks.map(({ pid }) => startTimeOf(pid)))
  return marks.filter(({ startTime }, index) => times[index] === startTime)
}

/** @returns undefined for a process that is gone or a zombie */
async function startTimeOf(pid: number): Promise<string | undefined> {
  const text = await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => '')
  // The name in the second field may itself hold spaces and brackets.
  const fields = text.slice(text.lastIndexOf(')') + 2).split(' ')
  return fields[0] === 'Z' ? undefined : fields[19]
}

function kill(pid: number, signal: NodeJS.Signals | undefined): void {
  try {
    process.kill(pid, signal)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error
  }
}
