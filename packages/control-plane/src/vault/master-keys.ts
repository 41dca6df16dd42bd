import { hkdfSync } from 'node:crypto'
import { keyIdOf, openWith, sealWith, UnreadableError } from './envelope.ts'

/** The keys that wrap all others. */
export interface MasterKeys {
  all: Buffer[]
  /** With the first of them */
  wrap(identity: string, key: Buffer): Buffer
  /** With whichever it was wrapped by; @throws when that is none of them */
  unwrap(identity: string, wrapped: Buffer): Buffer
  /** The one it was wrapped by; @throws when that is none of them */
  wrapperOf(wrapped: Buffer): Buffer
  /** Whether it was wrapped by the first of them */
  isCurrent(wrapped: Buffer): boolean
}

/** @param all the first one wraps, each opens what it has wrapped */
export function useMasterKeys(all: Buffer[]): MasterKeys {
  const known = all.map((key) => ({
    key,
    wrapping: Buffer.from(hkdfSync('sha256', key, '', 'paws wrap data keys', 32)),
    // Names the master key in what it wraps, so that a wrong one is told from damage and old ones are found.
    id: Buffer.from(hkdfSync('sha256', key, '', 'paws master key id', 4)).readUInt32BE(),
  }))
  const [first] = known
  if (!first) throw new Error('There is no master key')

  function find(wrapped: Buffer) {
    const id = keyIdOf(wrapped)
    const found = known.find((each) => each.id === id)
    if (!found) {
      throw new UnreadableError(
        'The master key is not the one that this database was sealed with: restore the right one, beside a new one ' +
          'if there is one (docs/keys.md)',
      )
    }
    return found
  }
  return {
    all,
    wrap: (identity, key) => sealWith(first.wrapping, first.id, identity, key),
    unwrap: (identity, wrapped) => openWith(find(wrapped).wrapping, identity, wrapped),
    wrapperOf: (wrapped) => find(wrapped).key,
    isCurrent: (wrapped) => keyIdOf(wrapped) === first.id,
  }
}
