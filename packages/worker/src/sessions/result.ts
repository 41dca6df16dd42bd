import { FileRefused, type Sandbox } from '../sandbox/driver.ts'

const resultPath = '/output/result.json'
const maxBytes = 1024 * 1024
/** The report that carries it may nest 64 levels, and has two of its own. */
const deepest = 60
/** Reading takes a millisecond; a sandbox that answers nothing must not hold its slot. */
const patienceMs = 10_000

export type Result = { output?: Json } | { refused: string }
type Json = string | number | boolean | null | Json[] | { [key: string]: Json }

const utf8 = new TextDecoder('utf-8', { fatal: true })

/** Reads what the script left as its output. Whatever is wrong with that is an answer, in a whole sentence. */
export async function readResult(sandbox: Sandbox): Promise<Result> {
  const { promise: late, resolve } = Promise.withResolvers<Result>()
  const timer = setTimeout(() => resolve({ refused: `${resultPath} could not be read in time.` }), patienceMs)
  try {
    return await Promise.race([read(sandbox), late])
  } catch (error) {
    if (!(error instanceof FileRefused)) return { refused: `${resultPath} could not be read: the sandbox is gone.` }
    return error.reason === 'not-found' ? {} : { refused: refusals[error.reason] }
  } finally {
    clearTimeout(timer)
  }
}

const refusals = {
  'not-regular': `${resultPath} is no regular file. Write the JSON into a plain file.`,
  link: `${resultPath} is a link, or lies behind one, and none is followed. Write the JSON into a plain file.`,
  'too-large': `${resultPath} is longer than 1 MiB. Leave less there, and put the rest where you keep your data.`,
  io: `${resultPath} could not be read inside the sandbox.`,
} satisfies Record<Exclude<FileRefused['reason'], 'not-found'>, string>

async function read(sandbox: Sandbox): Promise<Result> {
  const { content } = await sandbox.get(resultPath, { maxBytes })
  const pieces: Buffer[] = []
  for await (const piece of content) pieces.push(piece as Buffer)
  return parseResult(Buffer.concat(pieces))
}

export function parseResult(bytes: Buffer): Result {
  let output: Json
  try {
    output = JSON.parse(utf8.decode(bytes)) as Json
  } catch {
    // The parser's message would quote the file; that it isn't JSON is all there is to say.
    return { refused: `${resultPath} is not JSON in UTF-8.` }
  }
  if (isDeeperThan(output, deepest)) return { refused: `${resultPath} is nested deeper than ${deepest} levels.` }
  return { output }
}

function isDeeperThan(value: Json, most: number): boolean {
  let level: Json[] = [value]
  for (let depth = 0; level.length > 0; depth++) {
    if (depth > most) return true
    level = level.flatMap((item) => (typeof item === 'object' && item !== null ? Object.values(item) : []))
  }
  return false
}
