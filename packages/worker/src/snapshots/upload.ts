import { createReadStream } from 'node:fs'
import { join } from 'node:path'
import type { Readable } from 'node:stream'
import type { HeldSnapshot } from './store.ts'
import type { SnapshotFile } from './verify.ts'

/** Stores a file of a snapshot in the control plane; called again with a new stream, it may be stored already. */
export type PutFile = (digest: string, file: SnapshotFile, content: Readable) => Promise<void>

/** Gives a snapshot to the control plane. The manifest comes last: with it the snapshot is complete. */
export async function uploadSnapshot(held: HeldSnapshot, putFile: PutFile): Promise<void> {
  await putFile(held.digest, 'rootfs.squashfs', createReadStream(held.squashfs))
  await putFile(held.digest, 'manifest.json', createReadStream(join(held.squashfs, '../manifest.json')))
}
