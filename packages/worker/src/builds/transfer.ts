import type { Link } from '../link/client.ts'
import type { FetchFile, PutFile } from '../snapshots/index.ts'

const pathOf = (digest: string, file: string) => `/worker/snapshots/${encodeURIComponent(digest)}/${file}`

/** Brings files of snapshots from the control plane. */
export function fetchFile(link: Link): FetchFile {
  return async (digest, file, signal) => (await link.bytes({ method: 'GET', path: pathOf(digest, file), signal })).body
}

/** Brings files of snapshots to the control plane. */
export function putFile(link: Link, signal: AbortSignal): PutFile {
  return async (digest, file, content) => {
    const headers = { 'content-type': 'application/octet-stream' }
    const { body } = await link.bytes({ method: 'PUT', path: pathOf(digest, file), body: content, headers, signal })
    await body.dump()
  }
}
