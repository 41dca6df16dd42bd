import { readdirSync, readFileSync } from 'node:fs'

/** Processes of the host, this one aside, with this text as one of their arguments. */
export function pidsWith(argument: string): number[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name) && Number(name) !== process.pid)
    .filter((pid) => {
      try {
        return readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0').includes(argument)
      } catch {
        // It ended while it was looked at.
        return false
      }
    })
    .map(Number)
}
