/** Something to find. `Label` is handed back for it. */
export interface Pattern<Label> {
  bytes: Buffer
  label: Label
}

export interface Matcher<Label> {
  /** Length of the longest pattern, in bytes */
  longest: number
  /** Tells the label of each pattern wherever it is in these bytes */
  find(bytes: Buffer, found: (label: Label) => void): void
}

/**
 * Looks for many patterns at once, after Wu and Manber: the pair of bytes under the end of the shortest pattern says
 * how far one may jump, which is nearly always the whole of its length. That makes an image of a gigabyte a matter of
 * seconds.
 */
export function compile<Label>(patterns: Pattern<Label>[]): Matcher<Label> {
  const shortest = Math.min(...patterns.map(({ bytes }) => bytes.length))
  if (!(shortest >= 2)) throw new RangeError('There is nothing to look for, or it is shorter than two bytes')
  const jumps = new Uint8Array(65_536).fill(Math.min(shortest - 1, 255))
  const ending = new Map<number, Pattern<Label>[]>()
  for (const pattern of patterns) {
    for (let at = 1; at < shortest; at++) {
      const pair = pattern.bytes.readUInt16BE(at - 1)
      jumps[pair] = Math.min(jumps[pair] as number, shortest - 1 - at)
    }
    const last = pattern.bytes.readUInt16BE(shortest - 2)
    ending.set(last, [...(ending.get(last) ?? []), pattern])
  }
  return {
    longest: Math.max(...patterns.map(({ bytes }) => bytes.length)),
    find(bytes, found) {
      for (let at = shortest - 1; at < bytes.length; ) {
        const pair = ((bytes[at - 1] as number) << 8) | (bytes[at] as number)
        const jump = jumps[pair] as number
        if (jump === 0) {
          const start = at - shortest + 1
          for (const pattern of ending.get(pair) ?? []) {
            const end = start + pattern.bytes.length
            if (end <= bytes.length && pattern.bytes.compare(bytes, start, end) === 0) found(pattern.label)
          }
        }
        at += jump || 1
      }
    },
  }
}
