import { expect, test } from 'vitest'
import { debianMirrors, parseDeb822, parseList, sourcesFile } from './apt.ts'

const KEYRING = '/usr/share/keyrings/debian-archive-keyring.gpg'
const deb822 = `# a comment
Types: deb deb-src
URIs: https://user:word@mirror.test/debian
# http://elsewhere.test/
Suites: bookworm
  bookworm-updates
Components: main
Signed-By: ${KEYRING}

Types: deb
URIs: http://mirror.test/debian-security
Suites: bookworm-security
Signed-By: ${KEYRING}

Enabled: no
Types: deb
URIs: http://off.test/debian
Suites: bookworm
`
const foreign = `
Types: deb
URIs: https://packages.test/debian
Suites: bookworm
Signed-By: /usr/share/keyrings/vendor.gpg
`

test('of both formats, only what Debian signs becomes a mirror', () => {
  expect(debianMirrors([...parseDeb822(foreign), ...parseDeb822(deb822)])).toEqual({
    main: 'https://user:word@mirror.test/debian',
    updates: true,
    security: 'http://mirror.test/debian-security',
  })
  const list = `
# deb http://commented.test/debian bookworm main
deb-src http://mirror.test/debian bookworm main
deb [arch=amd64 signed-by=/etc/vendor.asc] http://packages.test/debian bookworm stable
deb http://vendor.test/apt bookworm main
deb [arch=amd64] http://mirror.test/debian/ bookworm main contrib`
  expect(debianMirrors(parseList(list))).toEqual({
    main: 'http://mirror.test/debian/',
    updates: false,
    security: undefined,
  })
})

test('without a Debian mirror the error names the remedy', () => {
  expect(() => debianMirrors(parseDeb822(foreign))).toThrow(/names no Debian mirror.*\/etc\/apt\/sources.list.d/)
})

test("the image's file has no password and no other repository", () => {
  const mirrors = debianMirrors([...parseDeb822(foreign), ...parseDeb822(deb822)])
  expect(sourcesFile('bookworm', mirrors, { shown: false })).toContain('https://user:word@mirror.test/debian\n')
  expect(sourcesFile('bookworm', mirrors, { shown: true })).toBe(`Types: deb
URIs: https://mirror.test/debian
Suites: bookworm bookworm-updates
Components: main
Signed-By: ${KEYRING}

Types: deb
URIs: http://mirror.test/debian-security
Suites: bookworm-security
Components: main
Signed-By: ${KEYRING}
`)
})
