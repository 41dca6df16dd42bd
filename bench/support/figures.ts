import { execFileSync } from 'node:child_process'
import { cpus, release, totalmem } from 'node:os'

export interface Figures {
  n: number
  p50: number
  p99: number
  min: number
  max: number
}

/** Spread of measured milliseconds, to a tenth. */
export function figures(values: number[]): Figures {
  const sorted = values.toSorted((a, b) => a - b)
  const at = (share: number) =>
    tenth(sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))] ?? Number.NaN)
  return { n: sorted.length, p50: at(0.5), p99: at(0.99), min: at(0), max: at(1) }
}

export interface Spread {
  median: number
  min: number
  max: number
}

/** Of one figure measured several times, to a hundredth. */
export function spread(values: number[]): Spread {
  const sorted = values.toSorted((a, b) => a - b)
  const at = (place: number) => hundredth(sorted[place] ?? Number.NaN)
  return { median: at(sorted.length >> 1), min: at(0), max: at(sorted.length - 1) }
}

export const tenth = (value: number) => Math.round(value * 10) / 10
export const hundredth = (value: number) => Math.round(value * 100) / 100

/** What a figure is worth nothing without. */
export function circumstances() {
  const git = (...args: string[]) => execFileSync('git', args, { encoding: 'utf8', cwd: import.meta.dirname }).trim()
  return {
    at: new Date().toISOString(),
    commit: git('rev-parse', '--short', 'HEAD') + (git('status', '--porcelain') ? '+changes' : ''),
    host: {
      cpu: cpus()[0]?.model.trim() ?? 'unknown',
      cores: cpus().length,
      memoryGB: Math.round(totalmem() / 1024 ** 3),
      kernel: release(),
      node: process.version,
    },
  }
}

/** Runs `task` so often, so many at a time, and answers how many were done a second. */
export async function rateOf(times: number, parallel: number, task: () => Promise<unknown>): Promise<number> {
  let left = times
  const began = performance.now()
  const lane = async () => {
    while (left-- > 0) await task()
  }
  await Promise.all(Array.from({ length: parallel }, lane))
  return (times * 1000) / (performance.now() - began)
}
