/** What one check has found out about this host. */
export interface Finding {
  name: string
  /** `limited`: paws works, with less; `missing`: `up` can't work before it is mended */
  state: 'ok' | 'limited' | 'missing'
  /** What there is, or isn't */
  found: string
  /** What follows from it; absent when all is well */
  means?: string
  /** What to do about it */
  mend?: string
}

export const stateMarks: Record<Finding['state'], string> = { ok: '✓', limited: '~', missing: '✗' }
