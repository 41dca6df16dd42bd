import { randomUUID } from 'node:crypto'
import { createReadStream, createWriteStream } from 'node:fs'
import { rm, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { pipeline } from 'node:stream/promises'
import { fileLimitBytes } from '@paws/api'
import type { SessionRequest } from './request.ts'

/** Paths inside are absolute, or relative to where the session's script runs. */
function pathOf(query: URLSearchParams): string {
  const path = query.get('path') ?? ''
  return path.startsWith('/') ? path : `/workspace/${path}`
}

export async function readFile({ stream, sandbox, query }: SessionRequest): Promise<void> {
  const { size, content } = await sandbox.get(pathOf(query), { maxBytes: fileLimitBytes })
  stream.respond({ ':status': 200, 'content-length': size })
  await pipeline(content, stream)
}

export async function writeFile(request: SessionRequest): Promise<void> {
  const { stream, headers, sandbox, query, spoolDir } = request
  const mode = Number.parseInt(query.get('mode') ?? '644', 8)
  const path = pathOf(query)
  if (headers['content-length'] !== undefined) {
    await sandbox.put(path, stream, { size: Number(headers['content-length']), mode })
  } else {
    // The sandbox wants to know the size first, so what comes without one waits on the disk until all of it is here.
    const spool = join(spoolDir, `upload-${randomUUID()}`)
    try {
      await pipeline(stream, createWriteStream(spool, { mode: 0o600 }))
      await sandbox.put(path, createReadStream(spool), { size: (await stat(spool)).size, mode })
    } finally {
      await rm(spool, { force: true })
    }
  }
  stream.respond({ ':status': 204 }, { endStream: true })
}
