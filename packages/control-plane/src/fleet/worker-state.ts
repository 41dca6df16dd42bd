import type { WorkerState } from '@paws/api'
import type { z } from 'zod'

/** What a worker says of itself, as JSON that jsonb takes: NUL and lone surrogates become U+FFFD. */
export function storableState(state: z.output<typeof WorkerState>): string {
  return JSON.stringify(state, (_key, value: unknown) =>
    typeof value === 'string' ? value.toWellFormed().replaceAll('\0', '\ufffd') : value,
  )
}
