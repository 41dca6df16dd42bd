import type { ServerResponse } from 'node:http'
import { promisify } from 'node:util'
import { brotliCompress, deflate, gzip, zstdCompress } from 'node:zlib'

/** Ways in which a host may write what it was sent into its answer. */
export const spellings: Record<string, (value: string) => string> = {
  'as it is': (value) => value,
  'in base64': (value) => btoa(value),
  'in base64 one byte later': (value) => btoa(`x${value}`),
  'in base64 two bytes later': (value) => btoa(`xy${value}`),
  'in base64 with more around it': (value) => btoa(`some user:${value}:and more`),
  'in base64url': (value) => Buffer.from(`???${value}>>>`, 'latin1').toString('base64url'),
  'in hexadecimal': (value) => Buffer.from(value, 'latin1').toString('hex'),
  'in hexadecimal, upper case': (value) => Buffer.from(value, 'latin1').toString('hex').toUpperCase(),
  'escaped for a URL': (value) => escapeBytes(value, /[^\w.~-]/g),
  'escaped for a URL, every byte': (value) => escapeBytes(value, /./gs),
  'escaped for a URL, lower case': (value) => escapeBytes(value, /./gs).toLowerCase(),
  'escaped for a form': (value) => new URLSearchParams({ value }).toString().slice('value='.length),
  'in JSON': (value) => JSON.stringify(value),
  'in JSON with escaped slashes': (value) => JSON.stringify(value).replaceAll('/', '\\/'),
  'in JSON, every character': (value) => `"${escapeUnits(value)}"`,
  'in JSON, every character, upper case': (value) =>
    `"${escapeUnits(value).replace(/[0-9a-f]{4}/g, (digits) => digits.toUpperCase())}"`,
}

const escapeBytes = (value: string, which: RegExp) =>
  value.replace(which, (byte) => `%${byte.charCodeAt(0).toString(16).padStart(2, '0').toUpperCase()}`)
const escapeUnits = (value: string) =>
  value.replace(/./gs, (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, '0')}`)

export const compressions: Record<string, (bytes: Buffer) => Promise<Buffer>> = {
  gzip: promisify<Buffer, Buffer>(gzip),
  'x-gzip': promisify<Buffer, Buffer>(gzip),
  deflate: promisify<Buffer, Buffer>(deflate),
  br: promisify<Buffer, Buffer>(brotliCompress),
  zstd: promisify<Buffer, Buffer>(zstdCompress),
  'gzip, br': async (bytes) => promisify<Buffer, Buffer>(brotliCompress)(await promisify<Buffer, Buffer>(gzip)(bytes)),
  'identity, GZIP': promisify<Buffer, Buffer>(gzip),
}

/** Writes a body in pieces that leave one by one. */
export async function writePieces(response: ServerResponse, pieces: (string | Buffer)[], pauseMs = 0): Promise<void> {
  for (const piece of pieces) {
    if (response.destroyed) return
    response.write(piece, 'latin1')
    await (pauseMs ? new Promise((resolve) => setTimeout(resolve, pauseMs)) : new Promise(setImmediate))
  }
  response.end()
}
