import { createWriteStream, openAsBlob } from 'node:fs'
import { rename, rm, stat } from 'node:fs/promises'
import { basename, join, posix } from 'node:path'
import { Readable } from 'node:stream'
import { blob } from 'node:stream/consumers'
import { pipeline } from 'node:stream/promises'
import type { PawsClient } from '@paws/sdk'
import { type Register, withJson } from '../context.ts'
import { usageError } from '../errors.ts'

const help = `
Examples:
  paws cp data.csv SESSION:/workspace/
  paws cp SESSION:/output/report.pdf .
  tar c src | paws cp - SESSION:src.tar
  paws cp SESSION:notes.txt -

One side is SESSION:PATH, the other a file here; "-" is stdin or stdout. Paths inside start from /workspace. Regular
files only, at most 256 MiB; for folders make an archive. A local name with a ":" is written ./like:this.`

export const cpCommand: Register = (program, context) => {
  withJson(program.command('cp <from> <to>'))
    .summary('copy a file into or out of a running session')
    .description('Copies a file into or out of a running session.')
    .addHelpText('after', help)
    .action(async (from: string, to: string, { json }: { json?: boolean }) => {
      const [source, target] = [remote(from), remote(to)]
      if (!source === !target) throw usageError('Exactly one side is SESSION:PATH. "paws cp --help" has examples.')
      const client = context.client()
      if (target) await upload(client, from, target)
      else if (source) await download(client, source, to)
      if (json && to !== '-') context.output.json({ from, to })
    })
}

interface Remote {
  sessionId: string
  path: string
}

function remote(text: string): Remote | undefined {
  const match = /^([^/:.][^/:]*):(.*)$/s.exec(text)
  if (!match) return undefined
  const [, sessionId = '', path = ''] = match
  return { sessionId, path }
}

async function upload(client: PawsClient, from: string, { sessionId, path }: Remote): Promise<void> {
  const isFolder = path === '' || path.endsWith('/')
  if (from === '-') {
    if (isFolder) throw usageError('stdin has no name: write the name of the file inside.')
    return client.sessions.files.write(sessionId, path, await blob(process.stdin))
  }
  const found = await stat(from)
  if (!found.isFile()) throw usageError(`${from} is no regular file. Make an archive of a folder and copy that.`)
  const mode = (found.mode & 0o777).toString(8).padStart(3, '0')
  const name = isFolder ? posix.join(path, basename(from)) : path
  await client.sessions.files.write(sessionId, name, await openAsBlob(from), { mode })
}

async function download(client: PawsClient, { sessionId, path }: Remote, to: string): Promise<void> {
  if (path === '' || path.endsWith('/'))
    throw usageError('A folder can’t be copied. Make an archive of it inside and copy that.')
  const content = Readable.fromWeb(await client.sessions.files.read(sessionId, path))
  if (to === '-') return pipeline(content, process.stdout, { end: false })
  const isFolder = await stat(to).then(
    (found) => found.isDirectory(),
    () => false,
  )
  const file = isFolder ? join(to, posix.basename(path)) : to
  // It appears whole or not at all, also when the connection breaks halfway.
  const part = `${file}.part-${process.pid}`
  try {
    await pipeline(content, createWriteStream(part, { flags: 'wx' }))
    await rename(part, file)
  } catch (error) {
    await rm(part, { force: true })
    throw error
  }
}
