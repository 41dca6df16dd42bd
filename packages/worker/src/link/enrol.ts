import { readFile, rename, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { openLink } from './client.ts'
import type { WorkerState } from './heartbeat.ts'

/** What a worker is to its control plane. */
export interface Identity {
  workerId: string
  /** As the control plane lists it */
  name: string
  credential: string
}

export interface EnrolOptions {
  url: URL
  dataDir: string
  name: string
  /** One-time token; needed only without a credential */
  token: string | undefined
  state: () => Promise<WorkerState>
}

/**
 * The credential of this worker: the one it has, if the control plane still knows that, else a new one for its token.
 *
 * @throws when it has neither, or the control plane refuses the token or can't be reached
 */
export async function enrol(options: EnrolOptions): Promise<Identity> {
  const { url, dataDir, name, token, state } = options
  const path = join(dataDir, 'credential.json')
  const known = await readCredential(path)
  if (known && !(token && (await isRefused(known, options)))) return known
  if (!token) {
    throw new Error(
      'This worker has no credential yet. Make a token by "paws fleet token" and give it: --token, or PAWS_ENROLMENT_TOKEN.',
    )
  }
  const link = openLink({ url, credential: token })
  try {
    const identity = await link.call('enrolWorker', { body: { name, state: await state() } })
    // Whole or not at all: a token can't be used a second time.
    await writeFile(`${path}.new`, `${JSON.stringify(identity)}\n`, { mode: 0o600, flush: true })
    await rename(`${path}.new`, path)
    return identity
  } catch (cause) {
    if (!isUnauthorized(cause)) throw cause
    throw new Error(
      'The enrolment token is unknown, used or expired. Make a new one by "paws fleet token"; each enrols one worker.',
      { cause },
    )
  } finally {
    await link.close()
  }
}

async function readCredential(path: string): Promise<Identity | undefined> {
  try {
    return JSON.parse(await readFile(path, 'utf8')) as Identity
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined
    throw new Error(`The worker's credential in ${path} can't be read. Remove it and enrol again with a new token.`, {
      cause: error,
    })
  }
}

/** A control plane with a new database doesn't know the workers of the old one. */
async function isRefused({ credential }: Identity, { url, state }: EnrolOptions): Promise<boolean> {
  const link = openLink({ url, credential })
  try {
    await link.call('heartbeat', { body: { state: await state(), held: [] } })
    return false
  } catch (error) {
    return isUnauthorized(error)
  } finally {
    await link.close()
  }
}

function isUnauthorized(error: unknown): boolean {
  return (error as { status?: number }).status === 401
}
