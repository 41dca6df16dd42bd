import { rename, writeFile } from 'node:fs/promises'

/** Writes a file that only its owner reads, from its first byte on; it is never seen half written. */
export async function writePrivately(file: string, text: string): Promise<void> {
  const fresh = `${file}.${process.pid}.new`
  await writeFile(fresh, text, { mode: 0o600 })
  await rename(fresh, file)
}
