import type { Duplex } from 'node:stream'

/** What the slot helper says, line by line. */
export interface Conversation {
  /** The next line, which must begin with `word`; resolves with what follows it */
  hear(word: string): Promise<string>
  answer(text: string): void
}

const LONGEST_LINE = 1024

/** @param failure turns the end of the conversation into an error that says why */
export function converse(stream: Duplex, failure: () => Promise<Error>): Conversation {
  const heard = lines(stream)
  return {
    async hear(word) {
      const { value: line } = await heard.next()
      if (!line?.startsWith(`${word} `)) throw await failure()
      return line.slice(word.length + 1)
    },
    answer(text) {
      stream.write(text)
    },
  }
}

async function* lines(stream: Duplex): AsyncGenerator<string, undefined> {
  let text = ''
  try {
    for await (const chunk of stream.iterator({ destroyOnReturn: false })) {
      text += chunk
      for (let end = text.indexOf('\n'); end >= 0; end = text.indexOf('\n')) {
        yield text.slice(0, end)
        text = text.slice(end + 1)
      }
      if (text.length > LONGEST_LINE) return
    }
  } catch {
    // A broken connection ends the conversation like a closed one; the helper's exit tells why.
  }
}
