import { once } from 'node:events'
import { type AddressInfo, createServer } from 'node:net'
import { networkInterfaces } from 'node:os'
import { text } from 'node:stream/consumers'
import { describe, expect, test } from 'vitest'
import { drivers } from './drivers.ts'
import { openSuite, python } from './suite.ts'

const ECONNREFUSED = 111
const EPERM = 1

const REACH = `
import json, socket, sys, time
def tcp(host, port):
  s = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET); s.settimeout(5)
  try: s.connect((host, port))
  except OSError as e: return e.errno or "timeout"
  return 0
def udp(host, port):
  s = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(5)
  try: s.connect((host, port)); s.send(b"x"); s.recv(1)
  except OSError as e: return e.errno or "timeout"
  return 0
`

describe.each(Object.entries(drivers))('%s: the network', { timeout: 30_000 }, (_, underTest) => {
  const suite = openSuite(underTest)

  test('has no wire: without rules nothing is let out, and other ports are refused at once', async () => {
    const sandbox = await suite.start()
    const targets = ['1.1.1.1', '169.254.169.254', '10.0.0.1', '2606:4700:4700::1111', '127.0.0.1', '::1']
    const source = `${REACH}
def said(host, port, text):
  s = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET); s.settimeout(5)
  try:
    s.connect((host, port)); s.sendall(text)
    return s.recv(12).decode()
  except ConnectionResetError: return ""
def resolved():
  try: socket.getaddrinfo("example.com", 443)
  except socket.gaierror: return False
  return True
ask = b"GET / HTTP/1.1\\r\\nHost: example.com\\r\\n\\r\\n"
began = time.time()
print(json.dumps([[tcp(h, 22), tcp(h, 8443), udp(h, 443), said(h, 80, ask), said(h, 443, ask)] for h in sys.argv[1:]] + [resolved(), time.time() - began < 2]))`
    const seen = await python<unknown[][]>(sandbox, source, ...targets)
    const refused = [ECONNREFUSED, ECONNREFUSED, ECONNREFUSED, expect.stringMatching(/^(HTTP\/1\.1 4(03|21))?$/), '']
    expect(seen).toEqual([...targets.map(() => refused), false, true])
  })

  test('does not reach what listens on the host', async () => {
    const server = createServer()
    let reached = 0
    server.on('connection', (socket) => {
      reached += 1
      socket.destroy()
    })
    await once(server.listen(0), 'listening')
    const { port } = server.address() as AddressInfo
    const own = Object.values(networkInterfaces()).flatMap((list) => list ?? [])
    const addresses = ['127.0.0.1', '::1', ...own.filter(({ scopeid }) => !scopeid).map(({ address }) => address)]
    const sandbox = await suite.start()
    const seen = await python(
      sandbox,
      `${REACH}\nprint(json.dumps([tcp(h, ${port}) for h in sys.argv[1:]]))`,
      ...addresses,
    )
    server.close()
    expect(seen).toEqual(addresses.map(() => ECONNREFUSED))
    expect(reached).toBe(0)
  })

  test('cannot be changed from inside', async () => {
    const sandbox = await suite.start()
    const source = `
import fcntl, json, socket, struct
def ask(kind, body):
  s = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
  s.send(struct.pack("IHHII", 16 + len(body), kind, 0x405, 1, 0) + body)
  return -struct.unpack("i", s.recv(4096)[16:20])[0]
link = struct.pack("BBHiII", 0, 0, 0, 0, 0, 0) + struct.pack("HH8s", 10, 3, b"dummy0") + struct.pack("HHHH8s", 16, 18, 10, 1, b"dummy")
down = struct.pack("BBHiII", 0, 0, 0, 1, 0, 1)
route = struct.pack("BBBBBBBBI", 2, 0, 0, 0, 254, 3, 0, 1, 0) + struct.pack("HHI", 8, 4, 1)
address = struct.pack("BBBBi", 2, 24, 0, 0, 1) + struct.pack("HH4s", 8, 2, bytes([10, 9, 8, 7]))
def ioctl():
  try: fcntl.ioctl(socket.socket(socket.AF_INET, socket.SOCK_DGRAM), 0x8914, struct.pack("16sh14x", b"lo", 0))
  except OSError as e: return e.errno
  return 0
print(json.dumps([ask(16, link), ask(16, down), ask(24, route), ask(25, route), ask(20, address), ioctl(), [n for _, n in socket.if_nameindex()]]))`
    expect(await python(sandbox, source)).toEqual([EPERM, EPERM, EPERM, EPERM, EPERM, EPERM, ['lo']])
  })

  test('leads in to a port that something inside listens on, and to no other', async () => {
    const sandbox = await suite.start()
    const serve = `import socket
s = socket.socket(); s.bind(("127.0.0.1", 8080)); s.listen(); print("ready", flush=True)
c, _ = s.accept(); c.sendall(c.recv(100).upper()); c.close()`
    const server = sandbox.exec({ argv: ['python3', '-c', serve], env: {}, cwd: '/' })
    await server.stdout[Symbol.asyncIterator]().next()
    const connection = await sandbox.connect(8080)
    connection.write('knock')
    expect(await text(connection)).toBe('KNOCK')
    await expect(sandbox.connect(81)).rejects.toThrow(/port 81/)
  })
})
