import { describe, expect, test } from 'vitest'
import { drivers } from '../conformance/drivers.ts'
import { run } from '../conformance/suite.ts'
import { openEgressWorld } from '../support/egress.ts'
import { header } from '../support/replies.ts'
import { inSandbox } from './support/boxes.ts'

const hosts = ['api.test', 'other.test', 'git.test', 'bot.test', 'narrow.test', 'sub.api.test']
const key = 'sk-ant-0123456789abcdefghijklmnop'
const token = 'ghp_ABCDEFGHIJKLMNOPQRSTUVWXYZ012345'
const botToken = '123456789:AAH_bot-token/with+marks="&%'
const password = 'correct horse battery\tstaple \xe9'

const credentials = {
  'api.test': { headers: { 'x-api-key': key, 'X-Second': 'second-value-0001' } },
  'git.test': { headers: { Authorization: `Bearer ${token}` } },
  'bot.test': { placeholders: { BOT_TOKEN: botToken, PASSWORD: password } },
  'narrow.test': {
    headers: { authorization: `Bearer ${token}` },
    placeholders: { NARROW: 'narrow-value-0123456789' },
    paths: ['/v1/*', '/exact'],
    methods: ['GET', 'POST'],
  },
}
const values = [key, token, botToken, password, 'second-value-0001', 'narrow-value-0123456789']
/** As they would stand anywhere: as they are, escaped, encoded. */
const spellings = values.flatMap((value) => {
  const bytes = Buffer.from(value, 'latin1')
  const escaped = [encodeURIComponent(value), JSON.stringify(value).slice(1, -1), escape(value)]
  return [value, ...escaped, bytes.toString('hex'), bytes.toString('base64').slice(0, -4)]
})

describe.each(Object.entries(drivers))('%s: secrets', { timeout: 30_000 }, (_, driver) => {
  const world = openEgressWorld(driver, { hosts })
  const box = inSandbox(world, { allowOut: ['other.test', 'sub.api.test'], credentials })
  const seen = () => {
    const { requests } = world.upstream
    const last = requests.at(-1)
    if (!last) throw new Error('Nothing arrived')
    return last
  }
  const arrived = () => world.upstream.requests.map(({ headers }) => headers)
  const everything = () => JSON.stringify(world.upstream.requests)
  const standIn = (name: string) => {
    const value = box().inlay.env[name]
    if (!value) throw new Error(`${name} is not there`)
    return value
  }

  describe('the header of a host', () => {
    test('is added on the way there', async () => {
      expect(await box().request({ host: 'api.test' })).toMatchObject({ status: 200 })
      expect(arrived()).toMatchObject([{ 'x-api-key': key, 'x-second': 'second-value-0001' }])
      await box().recorded({ decision: 'allowed', host: 'api.test', credential: true })
    })

    test.each(['other.test', 'sub.api.test'])('is not added at %s', async (host) => {
      const asked = await box().request({
        host,
        headers: [
          ['x-api-key', 'own'],
          ['authorization', 'own'],
        ],
      })
      expect(asked.status).toBe(200)
      // Its own are its own there: no secret of ours is at stake.
      expect(arrived()).toMatchObject([{ 'x-api-key': 'own', authorization: 'own' }])
      for (const spelling of spellings) expect(everything()).not.toContain(spelling)
    })

    test('is not added in the clear', async () => {
      for (const host of ['api.test', 'git.test', 'bot.test', 'narrow.test']) {
        const path = `/v1/${standIn('BOT_TOKEN')}/${standIn('NARROW')}`
        expect(await box().request({ host, secure: false, path })).toMatchObject({ status: 200 })
        expect(seen()).toMatchObject({ secure: false, target: path })
      }
      for (const spelling of spellings) expect(everything()).not.toContain(spelling)
    })

    test('is not added on another port, or under another name', async () => {
      for (const host of ['api.test:80', 'api.test:8443', 'other.test', 'API.test.other.test']) {
        const reply = await box().request({ host: 'api.test', headers: [['Host', host]] })
        expect(reply.status).toBe(421)
      }
      await expect(box().dial(await box().address('api.test'), 8443)).rejects.toThrow('errno 111')
      expect(world.upstream.requests).toEqual([])
    })

    test.each([
      [[['x-api-key', 'own']]],
      [
        [
          ['X-API-KEY', 'own'],
          ['x-api-key', 'own2'],
          ['X-Api-Key', 'own3'],
        ],
      ],
      [
        [
          ['x-second', 'own'],
          ['X-SECOND', ''],
        ],
      ],
      [[['Connection', 'x-api-key, x-second']]],
      [
        [
          ['Connection', 'close'],
          ['Connection', 'X-Api-Key'],
          ['x-api-key', 'own'],
        ],
      ],
      [
        [
          ['x-api-key', ''],
          ['x_api_key', 'own'],
        ],
      ],
      [
        [
          ['Authorization', 'Bearer own'],
          ['Proxy-Authorization', 'Basic b3du'],
        ],
      ],
    ] as const)('takes the place of what the client sent: %j', async (headers) => {
      await box().request({ host: 'api.test', headers: headers.map(([name, value]) => [name, value]) })
      const { rawHeaders } = seen()
      const named = (name: string) =>
        rawHeaders.filter((_, at) => at % 2 === 1 && rawHeaders[at - 1]?.toLowerCase() === name)
      expect(named('x-api-key')).toEqual([key])
      expect(named('x-second')).toEqual(['second-value-0001'])
      expect([...named('authorization'), ...named('proxy-authorization')]).toEqual([])
    })

    test('leaves no other credential of the client beside it', async () => {
      const names = [
        'authorization',
        'proxy-authorization',
        'api-key',
        'x-goog-api-key',
        'x-auth-token',
        'private-token',
      ]
      await box().request({ host: 'api.test', headers: [...names.map((name): [string, string] => [name, 'own'])] })
      for (const name of names) expect(arrived()[0]).not.toHaveProperty(name)
      expect(arrived()[0]).toMatchObject({ 'x-api-key': key })
    })

    test('stays the same over HTTP/2', async () => {
      const { connect } = await import('node:http2')
      const socket = await box().tls('api.test', { alpn: ['h2'] })
      const session = connect('https://api.test', { createConnection: () => socket })
      const stream = session.request({ ':path': '/', 'x-api-key': ['own', 'own2'], authorization: 'own' })
      await new Promise((resolve) => stream.on('response', resolve))
      session.destroy()
      expect(arrived()).toMatchObject([{ 'x-api-key': key }])
      expect(arrived()[0]).not.toHaveProperty('authorization')
    })

    test('becomes Basic where git speaks, and only there', async () => {
      const basic = `Basic ${Buffer.from(`x-access-token:${token}`).toString('base64')}`
      for (const [path, expected] of [
        ['/o/r.git/info/refs?service=git-upload-pack', basic],
        ['/o/r.git/git-receive-pack', basic],
        ['/o/r.git/info/refs', `Bearer ${token}`],
        ['/user', `Bearer ${token}`],
      ]) {
        await box().request({ host: 'git.test', path, headers: [['Authorization', 'Basic b3duOm93bg==']] })
        expect(arrived().at(-1)?.authorization).toBe(expected)
      }
    })

    test('does not follow a redirect to another host', async () => {
      world.upstream.answer('/moved', (_seen, response) => {
        response.writeHead(307, { location: 'https://other.test/taken' }).end()
      })
      const reply = await box().request({ host: 'api.test', path: '/moved' })
      expect([reply.status, header(reply, 'location')]).toEqual([307, 'https://other.test/taken'])
      expect(arrived()).toHaveLength(1)
      // A client that follows takes along what it has, and that is nothing.
      await box().request({ host: 'other.test', path: '/taken' })
      expect(arrived()[1]).not.toHaveProperty('x-api-key')
    })
  })

  describe('a credential that is narrowed', () => {
    const bearer = `Bearer ${token}`
    test.each([
      ['GET', '/v1/a', bearer],
      ['POST', '/exact', bearer],
      ['PUT', '/v1/a', undefined],
      ['get', '/v1/a', undefined],
      ['GET', '/v2/a', undefined],
      ['GET', '/exactly', undefined],
      ['GET', '/a/v1/a', undefined],
      ['GET', '/?/v1/a', undefined],
    ])('%s %s', async (method, path, expected) => {
      const target = `${path}?t=${standIn('NARROW')}`
      const bytes = `${method} ${target} HTTP/1.1\r\nHost: narrow.test\r\nX-Method-Override: GET\r\n\r\n`
      const { replies } = await box().send('narrow.test', bytes, { answers: 1 })
      if (method === 'get') return expect(replies.map(({ status }) => status)).toEqual([400])
      expect(arrived().map(({ authorization }) => authorization)).toEqual([expected])
      const swapped = target.replace(standIn('NARROW'), 'narrow-value-0123456789')
      expect(seen().target).toBe(expected ? swapped : target)
    })
  })

  describe('a placeholder', () => {
    test('is not the value, nor says anything of it', async () => {
      for (const name of ['BOT_TOKEN', 'PASSWORD', 'NARROW']) {
        expect(spellings).not.toContain(standIn(name))
        expect(standIn(name)).toMatch(/^[\w-]{24,}$/)
      }
      const other = await world.start({ credentials })
      expect(other.inlay.env.BOT_TOKEN).not.toBe(standIn('BOT_TOKEN'))
    })

    test('becomes the value in path, query, headers and body, escaped as each needs it', async () => {
      const made = standIn('BOT_TOKEN')
      const sent = { host: 'bot.test', method: 'POST' }
      await box().request({
        ...sent,
        path: `/bot${made}/send?t=${made}`,
        headers: [['X-T', `a ${made}`]],
        body: `{"t":"${made}"}`,
      })
      const { target, headers } = seen()
      expect(decodeURIComponent(target)).toBe(`/bot${botToken}/send?t=${botToken}`)
      expect(new URL(target, 'https://bot.test').searchParams.get('t')).toBe(botToken)
      expect(headers['x-t']).toBe(`a ${botToken}`)
      const types = [
        ['application/json', `{"t":"${made}"}`, () => JSON.parse(seen().body).t],
        ['application/x-www-form-urlencoded', `a=1&t=${made}`, () => new URLSearchParams(seen().body).get('t')],
        ['text/plain', `t=${made};`, () => seen().body.slice(2, -1)],
      ] as const
      for (const [type, body, read] of types) {
        await box().request({ ...sent, headers: [['Content-Type', type]], body })
        expect([type, read()]).toEqual([type, botToken])
        expect(seen().complete).toBe(true)
      }
    })

    test('splits neither request nor header, whatever its value holds', async () => {
      const made = standIn('PASSWORD')
      await box().request({
        host: 'bot.test',
        path: `/?p=${made}`,
        headers: [
          ['X-P', made],
          ['X-Q', `${made}${made}`],
        ],
      })
      expect(arrived()).toHaveLength(1)
      expect(seen().headers['x-p']).toBe(password)
      expect(seen().headers['x-q']).toBe(password + password)
      expect(seen().target).not.toMatch(/\s/)
    })

    test('stays what it is at every other host', async () => {
      const made = standIn('BOT_TOKEN')
      for (const host of ['other.test', 'api.test', 'git.test', 'narrow.test']) {
        await box().request({ host, method: 'POST', path: `/v1/${made}`, headers: [['X-T', made]], body: made })
        expect([seen().target, seen().headers['x-t'], seen().body]).toEqual([`/v1/${made}`, made, made])
      }
      expect(everything()).not.toContain(botToken.slice(0, 20))
    })

    test('is found also where the body comes in pieces', async () => {
      const made = standIn('BOT_TOKEN')
      const body = `before ${made} after`
      const chunks = [...body].map((byte) => `1\r\n${byte}\r\n`).join('')
      const head = 'POST / HTTP/1.1\r\nHost: bot.test\r\nTransfer-Encoding: chunked\r\n\r\n'
      const { replies } = await box().send('bot.test', [head, chunks, '0\r\n\r\n'], { answers: 1 })
      expect(replies.map(({ status }) => status)).toEqual([200])
      expect(seen().body).toBe(`before ${botToken} after`)
    })
  })

  test('none is inside: environment, /proc, files', async () => {
    for (const host of ['api.test', 'git.test', 'bot.test', 'narrow.test']) await box().request({ host, path: '/v1/a' })
    const planted = 'planted-in-the-environment-0123'
    // Read by all of the means that root inside has; the search sees itself find what was planted.
    const search = `
import glob, json, os, stat, sys
needles = [n.encode("latin1") for n in json.load(sys.stdin)]
open("/tmp/planted", "w").write(os.environ["PLANTED"])
found = set()
def look(path, data):
  for i, n in enumerate(needles):
    if n in data: found.add((i, path))
roots = [os.path.join(d, f) for top in ("/etc", "/run", "/tmp", "/root", "/home", "/var", "/workspace", "/usr/local", "/dev", "/output") for d, _, fs in os.walk(top) for f in fs]
roots += [p for pattern in ("environ", "cmdline", "maps", "mountinfo", "status", "stack", "net/*", "task/*/environ") for p in glob.glob("/proc/[0-9]*/" + pattern)]
roots += [p for p in glob.glob("/proc/*") + glob.glob("/proc/sys/**", recursive=True) + glob.glob("/sys/**", recursive=True)]
own = "/proc/%d/" % os.getpid()
for path in roots:
  if path == "/proc/kmsg": continue
  try:
    if not stat.S_ISREG(os.stat(path).st_mode): continue
    with open(path, "rb") as f: look(path, f.read(50_000_000))
  except OSError: pass
for pid in filter(str.isdigit, os.listdir("/proc")):
  if int(pid) == os.getpid(): continue
  try:
    with open("/proc/%s/maps" % pid) as maps, open("/proc/%s/mem" % pid, "rb") as memory:
      for line in maps:
        span, mode = line.split()[:2]
        if "r" not in mode or "[v" in line: continue
        begin, end = (int(x, 16) for x in span.split("-"))
        try: memory.seek(begin); look("/proc/%s/mem" % pid, memory.read(min(end - begin, 50_000_000)))
        except (OSError, ValueError, OverflowError): pass
  except OSError: pass
print(json.dumps(sorted(found)))`
    const put = Buffer.from(search)
    await box().sandbox.put('/tmp/search.py', put, { size: put.length })
    const needles = [...spellings, planted]
    const holder = box().sandbox.exec({ argv: ['sleep', '60'], env: { PLANTED: planted }, cwd: '/' })
    holder.exit.catch(() => undefined) // It ends with its sandbox
    const script = box().sandbox.exec({
      argv: ['python3', '/tmp/search.py'],
      env: { PLANTED: planted },
      cwd: '/',
      stdin: true,
    })
    script.stdin.end(JSON.stringify(needles))
    const { text } = await import('node:stream/consumers')
    const [out, errors] = await Promise.all([text(script.stdout), text(script.stderr)])
    expect(errors).toBe('')
    const found = JSON.parse(out) as [number, string][]
    const paths = found.filter(([at]) => needles[at] === planted).map(([, path]) => path)
    expect(paths).toContain('/tmp/planted')
    expect(paths.some((path) => /^\/proc\/\d+\/environ$/.test(path))).toBe(true)
    expect(paths.some((path) => /^\/proc\/\d+\/mem$/.test(path))).toBe(true)
    expect(found.filter(([at]) => needles[at] !== planted)).toEqual([])
    const { stdout } = await run(box().sandbox, 'cat /proc/net/tcp /proc/net/tcp6 /proc/net/udp /proc/net/unix')
    expect(stdout).not.toContain('paws')
  })

  test('none is in what was recorded', () => {
    const text = JSON.stringify(box().records)
    expect(box().records.length).toBeGreaterThan(20)
    for (const spelling of spellings) expect(text).not.toContain(spelling)
  })
})
