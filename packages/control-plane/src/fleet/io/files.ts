import type { Readable } from 'node:stream'
import { ApiError } from '../../errors.ts'
import { askSession, type IoRequest, type IoServices } from './reach.ts'

export interface FileOptions {
  orgId: string
  sessionId: string
  /** Absolute, or relative to where the session's script runs */
  path: string
  signal: AbortSignal
}

/** @throws FILE_NOT_FOUND; FILE_REFUSED for what is no regular file, lies behind a link, or is too large */
export async function readSessionFile(
  services: IoServices,
  { path, ...options }: FileOptions,
): Promise<{ bytes: Readable; length: number }> {
  const query = new URLSearchParams({ path })
  const { headers, stream } = await askSession(services, {
    ...options,
    ...{ action: 'files', method: 'GET', path: `files?${query}` },
  })
  return { bytes: stream, length: Number(headers['content-length']) }
}

export interface WriteOptions extends FileOptions {
  content: Readable
  /** In bytes, if the client has said so */
  length: number | undefined
  /** Octal digits */
  mode: string
}

/** Streams a file into a session, where it appears whole or not at all. @throws FILE_REFUSED */
export async function writeSessionFile(
  services: IoServices,
  { path, mode, content, length, ...options }: WriteOptions,
): Promise<void> {
  const query = new URLSearchParams({ path, mode })
  const request: IoRequest = {
    ...options,
    ...{ action: 'files', method: 'PUT', path: `files?${query}`, body: content },
    headers: length === undefined ? {} : { 'content-length': length },
  }
  const { stream } = await askSession(services, request).catch((error: unknown) => {
    // Of a file that is to be written only a folder can be missing, or be none.
    if (!(error instanceof ApiError) || error.code !== 'FILE_NOT_FOUND') throw error
    throw new ApiError('FILE_REFUSED', error.message, { cause: error })
  })
  stream.destroy()
}
