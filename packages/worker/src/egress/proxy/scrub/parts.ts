/** Values shorter than this are too likely to be something else; they are not searched for. */
export const SHORTEST = 8

const schemes = /^(?:basic|bearer|token|apikey|api-key|key|digest|negotiate|hmac|oauth) +(\S.*)$/i
/** Anybody's scheme, like SSWS or Bot, with one word behind it */
const likeScheme = /^[A-Za-z][\w-]* +(\S{8,})$/

/** User names that stand beside a token in Basic, and are the same for everyone. */
const commonNames = new Set(['x-access-token', 'x-oauth-basic', 'x-token-auth', 'gitlab-ci-token'])

/** A list has its longer values searched for alone up to so many; past them it is found as a whole. */
const MOST_LISTED = 16
/** Patterns of all values together, each in all its spellings; values themselves are never left out. */
const MOST_PATTERNS = 400

/**
 * What of the values of headers may come back alone: what follows a scheme, user and password of Basic, the longer
 * values in a list like that of a cookie. What is given is as what is returned: one character a byte.
 */
export function partsOf(values: string[]): string[] {
  const parts = new Set(values.flatMap(mainPartsOf))
  for (const listed of values.flatMap(listedIn)) {
    if (parts.size >= MOST_PATTERNS) break
    parts.add(listed)
  }
  return [...parts]
}

function listedIn(value: string): string[] {
  const listed: string[] = []
  for (const [pair] of value.matchAll(/[^\s,;]+/g)) {
    const part = /^[\w.-]+="?([^"]{16,})"?$/.exec(pair)?.[1]
    if (part && listed.push(part) === MOST_LISTED) break
  }
  return listed
}

function mainPartsOf(value: string): string[] {
  const credential = schemes.exec(value)?.[1]?.trim()
  // Where the credential is found the scheme before it gives nothing away.
  const parts = [credential && credential.length >= SHORTEST ? credential : value]
  // This one may as well be the first word of a passphrase, so that the whole stays a secret.
  const behind = credential ? undefined : likeScheme.exec(value)?.[1]
  if (behind) parts.push(behind)
  if (credential && /^basic /i.test(value)) parts.push(...basicParts(credential))
  return parts.filter((part) => part.length >= SHORTEST)
}

function basicParts(encoded: string): string[] {
  const decoded = Buffer.from(encoded, 'base64').toString('latin1')
  const colon = decoded.indexOf(':')
  if (colon < 0) return []
  return [decoded, decoded.slice(0, colon), decoded.slice(colon + 1)].filter((part) => !commonNames.has(part))
}
