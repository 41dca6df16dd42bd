import type { Duplex } from 'node:stream'
import type { Sandbox } from '../../packages/worker/src/sandbox/driver.ts'

const port = 7099

/**
 * Runs inside: whoever connects names an address in one line of JSON, hears an error number in another, and has from
 * there on a connection that was dialled inside of the sandbox. Datagrams have their length before them.
 */
const program = `
import json, socket, threading
def stream(near, far):
  def copy(source, sink):
    try:
      while data := source.recv(65536): sink.sendall(data)
    except OSError: pass
    try: sink.shutdown(socket.SHUT_WR)
    except OSError: pass
  there = threading.Thread(target=copy, args=(near, far)); there.start()
  copy(far, near); there.join()
def datagrams(near, far):
  def back():
    try:
      while data := far.recv(65536): near.sendall(len(data).to_bytes(2, "big") + data)
    except OSError: near.close()
  threading.Thread(target=back, daemon=True).start()
  source = near.makefile("rb")
  while size := source.read(2): far.send(source.read(int.from_bytes(size, "big")))
def serve(near):
  with near:
    line = b""
    while not line.endswith(b"\\n"):
      byte = near.recv(1)
      if not byte: return
      line += byte
    to = json.loads(line)
    kind = socket.SOCK_DGRAM if to["kind"] == "udp" else socket.SOCK_STREAM
    with socket.socket(socket.AF_INET6 if ":" in to["address"] else socket.AF_INET, kind) as far:
      far.settimeout(10)
      try: far.connect((to["address"], to["port"]))
      except OSError as e:
        near.sendall(b"%d\\n" % (e.errno or -1)); return
      far.settimeout(None)
      near.sendall(b"0\\n")
      (datagrams if kind == socket.SOCK_DGRAM else stream)(near, far)
listener = socket.create_server(("127.0.0.1", ${port}), backlog=256)
print("ready", flush=True)
while True: threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
`

/** Dials as a program inside does; rejects with the system's error number, as in `errno 111`. */
export type Dial = (address: string, port: number, kind?: 'tcp' | 'udp') => Promise<Duplex>

/** Lets this process speak from inside of a sandbox, so that a test may use all that Node has to attack with. */
export async function startRelay(sandbox: Sandbox): Promise<Dial> {
  const running = sandbox.exec({ argv: ['python3', '-c', program], env: {}, cwd: '/' })
  running.exit.catch(() => undefined) // It ends with its sandbox
  running.stderr.resume()
  await running.stdout[Symbol.asyncIterator]().next()
  return async (address, to, kind = 'tcp') => {
    const connection = await sandbox.connect(port)
    connection.on('error', () => connection.destroy())
    connection.write(`${JSON.stringify({ address, port: to, kind })}\n`)
    const errno = await readLine(connection)
    if (errno === '0') return connection
    connection.destroy()
    throw new Error(`errno ${errno}`)
  }
}

function readLine(stream: Duplex): Promise<string> {
  return new Promise((resolve, reject) => {
    let line = ''
    const onReadable = () => {
      for (let byte = stream.read(1); byte; byte = stream.read(1)) {
        const character = byte.toString('latin1')
        if (character === '\n') {
          stream.off('readable', onReadable)
          return resolve(line)
        }
        line += character
      }
    }
    stream.on('readable', onReadable)
    stream.once('close', () => reject(new Error('The relay broke off')))
  })
}
