import { createCipheriv, createDecipheriv, randomBytes } from 'node:crypto'

/*
 * What is sealed looks like this, so that keys can be rotated and the format can change:
 *   1 byte   format, now 1
 *   4 bytes  id of the key that sealed it, big-endian
 *  12 bytes  nonce, random
 *   n bytes  ciphertext, AES-256-GCM
 *  16 bytes  tag
 */
const format = 1
const headerBytes = 5
const nonceBytes = 12
const tagBytes = 16

/** Sealed bytes that can't be opened, however often it is tried. */
export class UnreadableError extends Error {
  override name = 'UnreadableError'
}

/** Seals bytes under a key; they open only with the same key and the same identity. */
export function sealWith(key: Buffer, keyId: number, identity: string, bytes: Uint8Array): Buffer {
  const header = Buffer.alloc(headerBytes)
  header[0] = format
  header.writeUInt32BE(keyId, 1)
  const nonce = randomBytes(nonceBytes)
  const cipher = createCipheriv('aes-256-gcm', key, nonce)
  cipher.setAAD(Buffer.concat([header, Buffer.from(identity)]))
  return Buffer.concat([header, nonce, cipher.update(bytes), cipher.final(), cipher.getAuthTag()])
}

/** Id of the key that sealed this. */
export function keyIdOf(sealed: Buffer): number {
  if (sealed.length < headerBytes + nonceBytes + tagBytes || sealed[0] !== format) {
    throw new UnreadableError('Sealed bytes of an unknown format: they are damaged, or a later version sealed them')
  }
  return sealed.readUInt32BE(1)
}

/** @throws UnreadableError when key or identity differ or a byte was changed */
export function openWith(key: Buffer, identity: string, sealed: Buffer): Buffer {
  keyIdOf(sealed)
  const header = sealed.subarray(0, headerBytes)
  const nonce = sealed.subarray(headerBytes, headerBytes + nonceBytes)
  const decipher = createDecipheriv('aes-256-gcm', key, nonce, { authTagLength: tagBytes })
  decipher.setAAD(Buffer.concat([header, Buffer.from(identity)]))
  decipher.setAuthTag(sealed.subarray(-tagBytes))
  try {
    return Buffer.concat([decipher.update(sealed.subarray(headerBytes + nonceBytes, -tagBytes)), decipher.final()])
  } catch (cause) {
    throw new UnreadableError('Sealed bytes do not open: they were changed, or belong to another place', { cause })
  }
}
