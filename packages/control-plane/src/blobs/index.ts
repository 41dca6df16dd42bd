import type { Blobs } from './blobs.ts'
import { openFolder } from './folder.ts'
import { openS3, readS3Location } from './s3.ts'

export { type Blobs, type StoredBlob, WrongDigest } from './blobs.ts'

/** Each kind of storage, by the scheme of its location. */
const kinds = {
  file: openFolder,
  s3: async (location) => openS3(readS3Location(location)),
} satisfies Record<string, (location: string) => Promise<Blobs>>

/** Opens the storage that `PAWS_BLOBS` names: a folder, or `s3://bucket/prefix?endpoint=…`. */
export function openBlobs({ blobs }: { blobs: string }): Promise<Blobs> {
  return blobs.startsWith('s3://') ? kinds.s3(blobs) : kinds.file(blobs)
}
