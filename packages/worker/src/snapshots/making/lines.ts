import type { Readable } from 'node:stream'

/** Takes a line of a log, without its end; more come when it has resolved. */
export type OnLine = (line: string) => void | Promise<void>

/** A line may go on for ever; what is longer is cut into several. */
const longestLine = 16_384

/** Hands over each line, without its end and without NUL. Reads on when what it was given to has resolved. */
export async function eachLine(stream: Readable, onLine: OnLine): Promise<void> {
  const decoder = new TextDecoder()
  let rest = ''
  const take = async (text: string) => {
    const lines = (rest + text).split('\n')
    rest = lines.pop() ?? ''
    for (const line of lines) await hand(line)
    if (rest.length > longestLine) {
      await hand(rest)
      rest = ''
    }
  }
  const hand = async (line: string) => {
    // Of what overwrites itself on a terminal, only the last is worth a line.
    const clean = line.replaceAll('\0', '').replace(/\r+$/, '').split('\r').at(-1) ?? ''
    for (let at = 0; at === 0 || at < clean.length; at += longestLine) await onLine(clean.slice(at, at + longestLine))
  }
  for await (const bytes of stream as AsyncIterable<Buffer>) await take(decoder.decode(bytes, { stream: true }))
  await take(decoder.decode())
  if (rest) await hand(rest)
}
