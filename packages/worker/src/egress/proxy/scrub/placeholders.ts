/** How a value is written where it comes to stand. */
export type Escape = 'raw' | 'url' | 'json' | 'form'

export interface Placeholders {
  none: boolean
  list: Placeholder[]
}

/** What the sandbox has, and what is sent instead; one character a byte. */
export interface Placeholder {
  standIn: string
  value: string
}

export interface Swap {
  push(chunk: Buffer): Buffer
  end(): Buffer
}

/** @param list stand-ins hold letters, digits and `-` only: nothing escapes them on their way */
export function compilePlaceholders(list: Placeholder[]): Placeholders {
  return { none: list.length === 0, list: list.toSorted((a, b) => b.standIn.length - a.standIn.length) }
}

const asEscape = (character: string) => `\\u00${character.charCodeAt(0).toString(16)}`

const escapes: Record<Escape, (value: string) => string> = {
  raw: (value) => value,
  // What may stand in a path and a query alike without meaning anything else there.
  url: (value) => encodeURIComponent(value).replace(/%3A/g, ':').replace(/%40/g, '@'),
  form: (value) => new URLSearchParams([['', value]]).toString().slice(1),
  json: (value) =>
    JSON.stringify(value)
      .slice(1, -1)
      .replace(/[\x7f-\xff]/g, asEscape),
}

export function swapText({ list }: Placeholders, text: string, how: Escape): string {
  return list.reduce((so, { standIn, value }) => so.replaceAll(standIn, () => escapes[how](value)), text)
}

/** Swaps in a header's value, also where `Authorization: Basic …` holds a stand-in as user or password. */
export function swapHeader(placeholders: Placeholders, value: string): string {
  const [, scheme, encoded] = /^(basic +)([A-Za-z0-9+/=_-]+)\s*$/i.exec(value) ?? []
  if (!scheme || !encoded) return swapText(placeholders, value, 'raw')
  const decoded = Buffer.from(encoded, 'base64').toString('latin1')
  const swapped = swapText(placeholders, decoded, 'raw')
  return swapped === decoded ? value : scheme + Buffer.from(swapped, 'latin1').toString('base64')
}

/** Swaps in a body as it comes; holds back only what may be the beginning of a stand-in. */
export function openSwap({ list }: Placeholders, how: Escape): Swap {
  const swaps = list.map(({ standIn, value }) => ({
    standIn: Buffer.from(standIn, 'latin1'),
    value: Buffer.from(escapes[how](value), 'latin1'),
  }))
  let held: Buffer = Buffer.alloc(0)

  function push(chunk: Buffer): Buffer {
    const bytes = held.length > 0 ? Buffer.concat([held, chunk]) : chunk
    const pieces: Buffer[] = []
    let at = 0
    // Where each is found next; looked up anew only when that place has been passed.
    const next = swaps.map(({ standIn }) => bytes.indexOf(standIn))
    for (;;) {
      let first = -1
      for (const [which, swap] of swaps.entries()) {
        let place = next[which] ?? -1
        if (place >= 0 && place < at) place = bytes.indexOf(swap.standIn, at)
        next[which] = place
        if (place >= 0 && (first < 0 || place < (next[first] ?? 0))) first = which
      }
      const swap = swaps[first]
      if (!swap) break
      const place = next[first] ?? 0
      pieces.push(bytes.subarray(at, place), swap.value)
      at = place + swap.standIn.length
    }
    const hold = beginning(bytes, at)
    held = Buffer.from(bytes.subarray(hold))
    if (pieces.length === 0) return bytes.subarray(0, hold)
    pieces.push(bytes.subarray(at, hold))
    return Buffer.concat(pieces)
  }

  /** Where a stand-in may have begun that goes on behind these bytes. */
  function beginning(bytes: Buffer, from: number): number {
    const longest = swaps[0]?.standIn.length ?? 1
    for (let at = Math.max(from, bytes.length - longest + 1); at < bytes.length; at++) {
      const tail = bytes.subarray(at)
      if (swaps.some(({ standIn }) => tail.length < standIn.length && standIn.subarray(0, tail.length).equals(tail))) {
        return at
      }
    }
    return bytes.length
  }

  return {
    push,
    end() {
      const rest = held
      held = Buffer.alloc(0)
      return rest
    },
  }
}
