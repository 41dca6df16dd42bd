import { execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { createServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import type { Certificate } from './certificates.ts'

const run = promisify(execFile)

export interface FakeGitHub {
  port: number
  /** What each request showed as `Authorization`, in their order */
  authorizations: (string | undefined)[]
  /** The text of a file as it was pushed, on the branch `main` */
  read(repository: string, file: string): Promise<string>
  close(): Promise<void>
}

export interface FakeGitHubOptions {
  certificate: Certificate
  token: string
  /** `owner/name`, each with one commit on `main` that holds a README.md */
  repositories: string[]
}

/**
 * A stand-in for github.com, as far as git goes: git's own server behind TLS. Like the real one it wants a token as the
 * password of `x-access-token`, and refuses `Bearer`.
 */
export async function startFakeGitHub(options: FakeGitHubOptions): Promise<FakeGitHub> {
  const folder = await mkdtemp(join(tmpdir(), 'paws-fake-github-'))
  for (const repository of options.repositories) await makeRepository(folder, repository)
  const expected = `Basic ${Buffer.from(`x-access-token:${options.token}`).toString('base64')}`
  const authorizations: (string | undefined)[] = []
  const server = createServer(options.certificate, (request, response) => {
    const { authorization } = request.headers
    authorizations.push(authorization)
    if (authorization === expected) return void serve(folder, request, response)
    request.resume()
    response.writeHead(401, { 'WWW-Authenticate': 'Basic realm="GitHub"', 'Content-Type': 'text/plain' })
    response.end('Invalid username or token.\n')
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  return {
    port: (server.address() as AddressInfo).port,
    authorizations,
    async read(repository, file) {
      const bare = join(folder, `${repository}.git`)
      return (await run('git', ['-C', bare, 'show', `main:${file}`])).stdout
    },
    async close() {
      server.closeAllConnections()
      server.close()
      await rm(folder, { recursive: true, force: true })
    },
  }
}

const author = ['-c', 'user.name=Test', '-c', 'user.email=test@example.com']

async function makeRepository(folder: string, repository: string): Promise<void> {
  const bare = join(folder, `${repository}.git`)
  await mkdir(bare, { recursive: true })
  await run('git', ['init', '--quiet', '--bare', '--initial-branch=main', bare])
  const work = await mkdtemp(join(folder, 'work-'))
  await run('git', ['init', '--quiet', '--initial-branch=main', work])
  await writeFile(join(work, 'README.md'), `# ${repository}\n`)
  await run('git', ['-C', work, 'add', '.'])
  await run('git', ['-C', work, ...author, 'commit', '--quiet', '--message=First'])
  await run('git', ['-C', work, 'push', '--quiet', bare, 'main'])
}

/** Hands the request to git's own program for that, by CGI. */
async function serve(root: string, request: IncomingMessage, response: ServerResponse): Promise<void> {
  const { pathname, search } = new URL(request.url ?? '/', 'https://github.com')
  // GitHub takes a repository's name with and without its ending.
  const path = pathname.replace(/^(\/[^/]+\/[^/]+?)(\.git)?\//, '$1.git/')
  const header = (name: string) => String(request.headers[name] ?? '')
  const child = spawn('git', ['http-backend'], {
    stdio: ['pipe', 'pipe', 'inherit'],
    env: {
      PATH: process.env.PATH,
      GIT_PROJECT_ROOT: root,
      GIT_HTTP_EXPORT_ALL: '1',
      REMOTE_USER: 'x-access-token',
      PATH_INFO: path,
      QUERY_STRING: search.slice(1),
      REQUEST_METHOD: request.method,
      CONTENT_TYPE: header('content-type'),
      HTTP_CONTENT_ENCODING: header('content-encoding'),
      GIT_PROTOCOL: header('git-protocol'),
    },
  })
  // Git stops reading when it has enough.
  child.stdin.on('error', () => undefined)
  request.pipe(child.stdin)
  let head = Buffer.alloc(0)
  for await (const bytes of child.stdout as AsyncIterable<Buffer>) {
    if (response.headersSent) {
      response.write(bytes)
      continue
    }
    head = Buffer.concat([head, bytes])
    const end = head.indexOf('\r\n\r\n')
    if (end === -1) continue
    const lines = head.toString('latin1', 0, end).split('\r\n')
    const fields = lines.map((line) => line.split(/: */, 2) as [string, string])
    const status = fields.find(([name]) => name === 'Status')?.[1] ?? '200'
    response.writeHead(Number.parseInt(status, 10), fields.filter(([name]) => name !== 'Status').flat())
    response.write(head.subarray(end + 4))
  }
  response.end()
}
