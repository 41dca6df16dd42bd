import { stringsOf } from './json-strings.ts'
import type { Matcher } from './matcher.ts'
import { openSeams, type Seams, type Segment, type Unit } from './seams.ts'
import { type ByteScrubber, openByteScrubber } from './stream.ts'

const NOTHING = Buffer.alloc(0)
/** A line longer than this is not compared with those around it. */
const MAX_LINE_BYTES = 1024 * 1024
const MAX_NAME_LENGTH = 200
const [LF, CR, COLON, SPACE] = [0x0a, 0x0d, 0x3a, 0x20]

/**
 * Scrubs text/event-stream, and JSON a line: as bytes first, then the lines against each other. Every line is a unit,
 * so events keep their framing whatever it is.
 */
export function openLineScrubber(matcher: Matcher, format: 'events' | 'json'): ByteScrubber {
  const inner = openByteScrubber(matcher)
  const seams: Seams<undefined> = openSeams(matcher)
  const segmentsOf = format === 'events' ? segmentsOfField : segmentsOfMessage
  let rest: Buffer = NOTHING
  /** In a line that is too long to be held */
  let passing = false

  function takeLines(bytes: Buffer): Unit<undefined>[] {
    const text = rest.length > 0 ? Buffer.concat([rest, bytes]) : bytes
    const units: Unit<undefined>[] = []
    let from = 0
    for (let end = endOfLine(text, from); end > 0; end = endOfLine(text, from)) {
      const line = text.subarray(from, end)
      units.push(...seams.add({ bytes: line, segments: passing ? [] : segmentsOf(line), label: undefined }))
      passing = false
      from = end
    }
    rest = text.subarray(from)
    if (passing || rest.length > MAX_LINE_BYTES) {
      passing = true
      units.push(...seams.add({ bytes: rest, segments: [], label: undefined }))
      rest = NOTHING
    }
    return units
  }

  return {
    push: (chunk) => joined(takeLines(inner.push(chunk))),
    end() {
      const units = takeLines(inner.end())
      const line = rest
      rest = NOTHING
      const last = seams.add({ bytes: line, segments: passing ? [] : segmentsOf(line), label: undefined })
      return joined([...units, ...last, ...seams.end()])
    },
    release: () => joined(seams.release()),
    get holds() {
      return seams.holds
    },
  }
}

/** Whether it may be part of a secret that a message of a WebSocket has more of: all of it, or each of its strings. */
export function segmentsOfMessage(message: Buffer): Segment[] {
  return segmentsIn(message, 0, message.length, '')
}

/** `data: …` in an event, or another field. */
function segmentsOfField(line: Buffer): Segment[] {
  const colon = line.indexOf(COLON)
  if (colon < 0) return []
  const from = line[colon + 1] === SPACE ? colon + 2 : colon + 1
  let to = line.length
  while (to > from && (line[to - 1] === LF || line[to - 1] === CR)) to--
  return segmentsIn(line, from, to, line.toString('latin1', 0, Math.min(colon, MAX_NAME_LENGTH)))
}

function segmentsIn(bytes: Buffer, from: number, to: number, name: string): Segment[] {
  const json = stringsOf(bytes.subarray(from, to))
  if (!json) return [{ channel: name, from, to }]
  return json.strings.flatMap((string) => {
    const segment = { channel: `${name} ${string.path}`, from: from + string.from, to: from + string.to }
    // Pieces of two answers may alternate, told apart by a number beside them; or that number may only count.
    return json.indexes ? [segment, { ...segment, channel: `${segment.channel}${json.indexes}` }] : [segment]
  })
}

/** Where the line ends, behind its CR, LF or both; 0 when it has not ended. */
function endOfLine(text: Buffer, from: number): number {
  const lf = text.indexOf(LF, from)
  const cr = text.subarray(from, lf < 0 ? text.length : lf).indexOf(CR)
  if (cr < 0) return lf + 1
  const end = from + cr + 1
  // That an LF follows is seen only when it is there; without it the line is at its end as well.
  return text[end] === LF ? end + 1 : end
}

function joined(units: Unit<undefined>[]): Buffer {
  const [first] = units
  return units.length === 1 && first ? first.bytes : Buffer.concat(units.map(({ bytes }) => bytes))
}
