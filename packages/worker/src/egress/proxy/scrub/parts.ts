/** Values shorter than this are too likely to be something else; they are not searched for. */
export const SHORTEST = 8

const schemes = /^(?:basic|bearer|token|apikey|api-key|key|digest|negotiate|hmac|oauth) +(\S.*)$/i

/** User names that stand beside a token in Basic, and are the same for everyone. */
const commonNames = new Set(['x-access-token', 'x-oauth-basic', 'x-token-auth', 'gitlab-ci-token'])

/**
 * What of a header's value may come back alone: what follows a scheme, user and password of Basic, the longer values
 * in a list like that of a cookie. What is given is as what is returned: one character a byte.
 */
export function partsOf(value: string): string[] {
  const credential = schemes.exec(value)?.[1]?.trim()
  // Where the credential is found the scheme before it gives nothing away.
  const parts = [credential && credential.length >= SHORTEST ? credential : value]
  if (credential && /^basic /i.test(value)) parts.push(...basicParts(credential))
  for (const pair of value.split(/[\s,;]+/)) {
    const listed = /^[\w.-]+="?([^"]{16,})"?$/.exec(pair)?.[1]
    if (listed) parts.push(listed)
  }
  return parts.filter((part) => part.length >= SHORTEST)
}

function basicParts(encoded: string): string[] {
  const decoded = Buffer.from(encoded, 'base64').toString('latin1')
  const colon = decoded.indexOf(':')
  if (colon < 0) return []
  return [decoded, decoded.slice(0, colon), decoded.slice(colon + 1)].filter((part) => !commonNames.has(part))
}
