import { join } from 'node:path'
import { allForms } from '../forms.ts'
import type { Note, PlaceKind, Subject } from '../place.ts'
import type { Item } from '../search.ts'
import { outputOf, tree } from './host.ts'

/** Where large things lie: the images of snapshots and whatever else is a blob. */

export const snapshots: PlaceKind = {
  what: 'every snapshot: as unpacked by the worker, and every stored image unpacked',
  when: ['ended'],
  holds: allForms,
  async *items(subject, note) {
    yield* tree(join(subject.config.dataDir, 'worker', 'snapshots'), note)
    for await (const item of storedIn(subject, note)) {
      if (!item.where.endsWith('.squashfs')) continue
      yield { where: `${item.where}, unpacked`, read: () => unpacked(item.where) }
    }
  },
}

export const blobs: PlaceKind = {
  what: 'everything in the storage of blobs',
  when: ['ended'],
  holds: allForms,
  items: storedIn,
}

async function* storedIn({ config }: Subject, note: Note): AsyncGenerator<Item> {
  const location = config.env.PAWS_BLOBS || join(config.dataDir, 'control-plane', 'blobs')
  if (location.startsWith('s3:')) note('Blobs lie in S3: what is stored there was not looked at')
  else yield* tree(location, note)
}

/** All files of an image one after the other, with their names, without writing any of them anywhere. */
function unpacked(image: string): AsyncGenerator<Buffer> {
  // unsquashfs opens its output by a name, which only the pipe that a shell makes has.
  return outputOf('sh', ['-c', 'unsquashfs -no-progress -pf /dev/stdout "$1" | cat', 'sh', image])
}
