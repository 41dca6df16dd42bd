import { styleText } from 'node:util'
import type { CliConfig } from './config.ts'

type Style = Parameters<typeof styleText>[0]
type Stream = NodeJS.WriteStream

/** Colours a text for a stream: on a terminal, unless NO_COLOR says no; elsewhere only if FORCE_COLOR says so. */
export function painter(config: Pick<CliConfig, 'color'>, stream: Stream) {
  const colors = config.color ?? stream.isTTY === true
  return (style: Style, text: string) => (colors ? styleText(style, text, { validateStream: false }) : text)
}

export type Paint = ReturnType<typeof painter>

/** Where commands write. Results go to stdout, everything said to people beside them to stderr. */
export interface Output {
  /** A line of the result */
  line(text: string): void
  /** The result as JSON, for programs */
  json(value: unknown): void
  /** One row an entry; with none, `empty` on stderr */
  table<Row>(rows: Row[], columns: Columns<Row>, empty: string): void
  /** Names and values of one thing, the absent ones left out */
  card(fields: Record<string, string | number | undefined>): void
  /** A remark for people */
  note(text: string): void
  paint: Paint
}

/** Headings to what stands under them. */
export type Columns<Row> = Record<string, (row: Row) => string | number | undefined>

export function createOutput(config: Pick<CliConfig, 'color'>): Output {
  const paint = painter(config, process.stdout)
  const line = (text: string) => void process.stdout.write(`${text}\n`)
  const note = (text: string) => void process.stderr.write(`${text}\n`)
  return {
    line,
    note,
    paint,
    json: (value) => line(JSON.stringify(value, null, process.stdout.isTTY ? 2 : undefined)),
    table(rows, columns, empty) {
      if (rows.length === 0) note(empty)
      else for (const text of tableLines(rows, columns, paint)) line(text)
    },
    card(fields) {
      const shown = Object.entries(fields).filter(([, value]) => value !== undefined)
      const width = Math.max(...shown.map(([name]) => name.length))
      for (const [name, value] of shown)
        line(`${paint('dim', name.padEnd(width))}  ${paintStatus(String(value), paint)}`)
    },
  }
}

function tableLines<Row>(rows: Row[], columns: Columns<Row>, paint: Paint): string[] {
  const headings = Object.keys(columns)
  const cells = rows.map((row) => Object.values(columns).map((cell) => String(cell(row) ?? '-')))
  const widths = headings.map((heading, i) => Math.max(heading.length, ...cells.map((row) => row[i]?.length ?? 0)))
  const join = (row: string[], style: (text: string) => string) =>
    row
      .map((text, i) => style(text) + ' '.repeat((widths[i] ?? 0) - text.length))
      .join('  ')
      .trimEnd()
  return [
    join(headings, (text) => paint('dim', text)),
    ...cells.map((row) => join(row, (text) => paintStatus(text, paint))),
  ]
}

const statusStyles: Record<string, Style> = {
  running: 'cyan',
  building: 'cyan',
  pending: 'yellow',
  queued: 'yellow',
  draining: 'yellow',
  completed: 'green',
  ready: 'green',
  healthy: 'green',
  failed: 'red',
  timeout: 'red',
  unhealthy: 'red',
  cancelled: 'dim',
}

function paintStatus(text: string, paint: Paint): string {
  const style = statusStyles[text]
  return style ? paint(style, text) : text
}

/** `5 s`, `3 min`, `2 h`, `4 d`: how long something took, or was ago. */
export function shortDuration(ms: number): string {
  if (ms < 1000) return `${Math.round(ms)} ms`
  if (ms < 60_000) return `${(ms / 1000).toFixed(ms < 10_000 ? 1 : 0)} s`
  if (ms < 3_600_000) return `${Math.floor(ms / 60_000)} min`
  return ms < 86_400_000 * 2 ? `${Math.floor(ms / 3_600_000)} h` : `${Math.floor(ms / 86_400_000)} d`
}

export function ago(timestamp: string | undefined): string | undefined {
  return timestamp && `${shortDuration(Math.max(0, Date.now() - Date.parse(timestamp)))} ago`
}

export function megabytes(bytes: number | undefined): string | undefined {
  return bytes === undefined ? undefined : `${(bytes / 1024 / 1024).toFixed(0)} MB`
}
