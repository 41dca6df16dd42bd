/**
 * How much more a search may cost. Nearly all bytes cost none of it. But a secret that repeats itself, set by the one
 * who chose the text too, can make each byte the beginning of thousands that are read, and one process serves many.
 */
export interface Effort {
  /** Steps, of some nanoseconds; below zero whatever is searched counts as a secret to its end */
  left: number
}

/** What a secret told letter by letter needs, and hardly a tenth of a second. */
const IN_STOCK = 2_000_000
/** Far more than any text needs that was not made for it. */
const PER_BYTE = 8

export const openEffort = (): Effort => ({ left: IN_STOCK })

/** For so many bytes that came. What was not used is not kept for later, and an effort that is spent stays it. */
export function allow(effort: Effort, bytes: number): void {
  if (effort.left >= 0) effort.left = Math.min(effort.left, IN_STOCK) + bytes * PER_BYTE
}
