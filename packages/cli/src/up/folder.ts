import { mkdir, stat } from 'node:fs/promises'
import { dirname } from 'node:path'

/**
 * Makes a folder and those above it, one by one: Node's own recursive mkdir tries for ever where the kernel answers
 * ENOENT although the parent is there, as it does below /proc.
 *
 * @throws naming the setting, when it can't be made or is none
 */
export async function makeDataFolder(folder: string, mode: number): Promise<void> {
  try {
    await make(folder, mode)
  } catch (cause) {
    const { code = 'unknown', path } = cause as NodeJS.ErrnoException
    const why =
      code === 'ENOTDIR' || code === 'EEXIST' ? `${path ?? folder} is no folder` : `${path ?? folder}: ${code}`
    throw new Error(`PAWS_DATA is ${folder}, which can't be made (${why}). Choose a folder that you may write to.`, {
      cause,
    })
  }
}

async function make(folder: string, mode: number): Promise<void> {
  const found = await stat(folder).catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return undefined
    throw error
  })
  if (found?.isDirectory()) return
  if (!found && dirname(folder) !== folder) await make(dirname(folder), mode)
  await mkdir(folder, { mode })
}
