import { InvalidArgumentError } from 'commander'

/** How people write options, and what the API wants. Each throws what the command line shows beside the option's name. */

const unitsMs: Record<string, number> = { ms: 1, s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 }

/** `500ms`, `30s`, `10m`, `1.5h`, `7d`: milliseconds. A bare number is refused, since nobody knows its unit. */
export function durationMs(text: string): number {
  const match = /^(\d+(?:\.\d+)?)(ms|s|m|h|d)$/.exec(text)
  const unit = unitsMs[match?.[2] ?? '']
  if (!match || unit === undefined) throw new InvalidArgumentError('Write it with a unit, like 30s, 10m or 1.5h.')
  return Math.round(Number(match[1]) * unit)
}

/** `4096`, `512m`, `4g`: megabytes. */
export function sizeMB(text: string): number {
  const match = /^(\d+(?:\.\d+)?)([mg]?)b?$/i.exec(text)
  if (!match) throw new InvalidArgumentError('Write megabytes, like 4096, or 4g.')
  return Math.round(Number(match[1]) * (match[2]?.toLowerCase() === 'g' ? 1024 : 1))
}

/** 1, 2, 3, … */
export function count(text: string): number {
  const number = wholeNumber(text)
  if (number === 0) throw new InvalidArgumentError('It is at least 1.')
  return number
}

export function wholeNumber(text: string): number {
  if (!/^\d+$/.test(text)) throw new InvalidArgumentError('It is a whole number.')
  return Number(text)
}

/** Collects `NAME=VALUE`, given any number of times. */
export function pair(text: string, before: Record<string, string> = {}): Record<string, string> {
  const at = text.indexOf('=')
  if (at < 1) throw new InvalidArgumentError('Write it as NAME=VALUE.')
  return { ...before, [text.slice(0, at)]: text.slice(at + 1) }
}

/** Collects `NAME=VALUE`, or `NAME` alone for its value out here. */
export function envPair(env: NodeJS.ProcessEnv) {
  return (text: string, before: Record<string, string> = {}): Record<string, string> => {
    if (text.includes('=')) return pair(text, before)
    const value = env[text]
    if (value === undefined) throw new InvalidArgumentError(`${text} is not set here. Write ${text}=VALUE.`)
    return { ...before, [text]: value }
  }
}
