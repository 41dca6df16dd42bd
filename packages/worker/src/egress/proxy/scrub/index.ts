import { allow, type Effort, openEffort } from './effort.ts'
import { openLineScrubber, segmentsOfMessage } from './lines.ts'
import { type Matcher, openMatcher } from './matcher.ts'
import { partsOf, SHORTEST } from './parts.ts'
import { openSeams, type Unit } from './seams.ts'
import { type ByteScrubber, MASK, openByteScrubber } from './stream.ts'

/*
 * Secrets that come back in an answer become "***" before the sandbox sees them: as they are, in base64, hexadecimal,
 * escaped for a URL or JSON, and split over any boundary. Values under eight characters are not searched. Nothing here
 * throws: what would cost too much to search (effort.ts) is "***" from there to its end.
 */

export {
  compilePlaceholders,
  type Escape,
  openSwap,
  type Placeholders,
  type Swap,
  swapHeader,
  swapText,
} from './placeholders.ts'

export interface Secrets {
  /** Whether nothing is searched */
  none: boolean
  /** Made when it is first needed: most sandboxes wait for a session, and many sessions get no such answer */
  matcher(): Matcher
}

/** @param values whole values of headers and placeholders, one character a byte; what they consist of is found too */
export function compileSecrets(values: string[]): Secrets {
  const parts = partsOf(values)
  let matcher: Matcher | undefined
  return {
    none: parts.length === 0,
    matcher: () => {
      matcher ??= openMatcher(parts)
      return matcher
    },
  }
}

/** A header, a status text, a path; one character a byte, unless there are characters that are more. */
export function scrubText(secrets: Secrets, text: string): string {
  if (secrets.none || text.length < SHORTEST || !secrets.matcher().mayHold(text)) return text
  const encoding = /[^\0-\xff]/.test(text) ? 'utf8' : 'latin1'
  return scrubWhole(secrets.matcher(), Buffer.from(text, encoding), openEffort()).toString(encoding)
}

export interface Scrub {
  /** @returns what can be told already */
  push(chunk: Buffer): Buffer
  /** The end of the body: the rest of it */
  end(): Buffer
}

/**
 * How long what may be the beginning of a secret is held while nothing follows: who waits for the end of an event before
 * speaking again would wait for ever. By then it goes on if it is short, masked if not; what follows is still found.
 */
const HOLD_MS = 200

/**
 * Scrubs one body.
 *
 * @param contentType events, and JSON a line, are compared with each other too
 * @param release takes what was held back and can go on although nothing followed it; without it that is held
 */
export function openScrub(secrets: Secrets, contentType: string, release?: (bytes: Buffer) => void): Scrub {
  if (secrets.none) return { push: (chunk) => chunk, end: () => Buffer.alloc(0) }
  const scrubber = scrubberFor(secrets.matcher(), contentType)
  return release ? withRelease(scrubber, release) : scrubber
}

function scrubberFor(matcher: Matcher, contentType: string): ByteScrubber {
  // A header that came twice is a list, of which a client may take either.
  const types = contentType.split(',').map((one) => one.split(';', 1)[0]?.trim().toLowerCase() ?? '')
  if (types.includes('text/event-stream')) return openLineScrubber(matcher, 'events')
  if (types.some((type) => jsonLines.test(type))) return openLineScrubber(matcher, 'json')
  return openByteScrubber(matcher)
}

const jsonLines = /^application\/(?:x-)?(?:ndjson|jsonl|jsonlines|json-lines|json-seq|stream\+json)$/

function withRelease(scrubber: ByteScrubber, release: (bytes: Buffer) => void): Scrub {
  const timer = holdTimer(() => {
    const bytes = scrubber.release()
    if (bytes.length > 0) release(bytes)
  })
  return {
    push(chunk) {
      const bytes = scrubber.push(chunk)
      timer.set(scrubber.holds)
      return bytes
    },
    end() {
      timer.set(false)
      return scrubber.end()
    },
  }
}

/** A message of a WebSocket. */
export interface Message {
  bytes: Buffer
  binary: boolean
}

export interface MessageScrub {
  /** Messages go on in their order, as soon as they hold no beginning of a secret */
  push(message: Message): void
  /** The end of the conversation: the rest of it */
  end(): void
}

/** Scrubs the messages of a WebSocket, each for itself and against each other. */
export function openMessageScrub(secrets: Secrets, send: (message: Message) => void): MessageScrub {
  if (secrets.none) return { push: send, end: () => undefined }
  const matcher = secrets.matcher()
  const seams = openSeams<boolean>(matcher)
  const effort = openEffort()
  const pass = (units: Unit<boolean>[]) => {
    for (const { bytes, label } of units) send({ bytes, binary: label })
  }
  const timer = holdTimer(() => pass(seams.release()))
  return {
    push(message) {
      const bytes = scrubWhole(matcher, message.bytes, effort)
      pass(seams.add({ bytes, segments: segmentsOfMessage(bytes), label: message.binary }))
      timer.set(seams.holds)
    },
    end() {
      timer.set(false)
      pass(seams.end())
    },
  }
}

function scrubWhole(matcher: Matcher, bytes: Buffer, effort: Effort): Buffer {
  allow(effort, bytes.length)
  const { found } = matcher.search(bytes, true, effort)
  if (found.length === 0) return bytes
  const pieces: Buffer[] = []
  let at = 0
  for (const [from, to] of found) {
    pieces.push(bytes.subarray(at, from), MASK)
    at = to
  }
  return Buffer.concat([...pieces, bytes.subarray(at)])
}

/** Counts from the last time that something was held and more came. */
function holdTimer(release: () => void) {
  let timer: NodeJS.Timeout | undefined
  return {
    set(holds: boolean) {
      clearTimeout(timer)
      timer = holds ? setTimeout(release, HOLD_MS).unref() : undefined
    },
  }
}
