import { expect, test } from 'vitest'
import { FileRefused, type Sandbox, SandboxLost } from './driver.ts'
import { furnish } from './furnish.ts'

const inlay = { certificate: '-----BEGIN CERTIFICATE-----\n', env: { TOKEN: 'made up', SSL_CERT_FILE: '/own' } }

function sandboxThat(refuses: (path: string) => Error | undefined) {
  const files = new Map<string, string>()
  const put: Sandbox['put'] = async (path, content) => {
    const error = refuses(path)
    if (error) throw error
    files.set(path, String(content))
  }
  return { sandbox: { put } as Sandbox, files }
}

test('the authority lies where programs are told, and where systems look', async () => {
  const { sandbox, files } = sandboxThat(() => undefined)
  const { env, placed } = furnish(sandbox, inlay, { warn: () => undefined })
  await placed
  expect([...files.keys()].sort()).toEqual([
    '/etc/ssl/certs/ca-certificates.crt',
    '/run/paws/ca.crt',
    '/usr/local/share/ca-certificates/paws.crt',
  ])
  expect(new Set(files.values())).toEqual(new Set([inlay.certificate]))
  const told = ['CURL_CA_BUNDLE', 'GIT_SSL_CAINFO', 'NODE_EXTRA_CA_CERTS', 'PIP_CERT', 'REQUESTS_CA_BUNDLE']
  expect(env).toEqual({ ...Object.fromEntries(told.map((name) => [name, '/run/paws/ca.crt'])), ...inlay.env })
})

test("an image whose system files lie behind links keeps them, and that is logged; else it isn't started", async () => {
  const warned: unknown[] = []
  const warn = (about: unknown) => void warned.push(about)
  const link = new FileRefused('link', 'There is a link on the way')
  const linked = sandboxThat((path) => (path.startsWith('/etc') ? link : undefined))
  await furnish(linked.sandbox, inlay, { warn }).placed
  expect(warned).toEqual([{ err: link, path: '/etc/ssl/certs/ca-certificates.crt' }])
  const refused = sandboxThat((path) => (path.startsWith('/run') ? link : undefined))
  await expect(furnish(refused.sandbox, inlay, { warn }).placed).rejects.toBe(link)
  const lost = new SandboxLost('gone')
  await expect(furnish(sandboxThat(() => lost).sandbox, inlay, { warn }).placed).rejects.toBe(lost)
})
