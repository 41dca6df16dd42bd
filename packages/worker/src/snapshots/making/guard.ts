import { Transform } from 'node:stream'

/** The stream held what must not be in it. */
export class ForbiddenFound extends Error {
  override name = 'ForbiddenFound'
}

export interface GuardOptions {
  /** Most bytes that pass */
  limitBytes: number
  /** What is said when there are more */
  tooLong: string
  /** Bytes that must not pass, wherever they are cut */
  forbidden: Buffer[]
}

/** Passes bytes on as they are, until there are too many or forbidden ones among them. */
export function guard({ limitBytes, tooLong, forbidden }: GuardOptions): Transform {
  const longest = Math.max(0, ...forbidden.map(({ length }) => length))
  let passed = 0
  let tail = Buffer.alloc(0)
  return new Transform({
    transform(chunk: Buffer, _encoding, done) {
      passed += chunk.length
      if (passed > limitBytes) return done(new Error(tooLong))
      const seen = Buffer.concat([tail, chunk])
      if (forbidden.some((bytes) => seen.includes(bytes))) return done(new ForbiddenFound('Forbidden bytes were found'))
      tail = seen.subarray(Math.max(0, seen.length - longest + 1))
      done(null, chunk)
    },
  })
}
