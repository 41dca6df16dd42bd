import { randomUUID } from 'node:crypto'
import { mkdir, readdir, readFile, rename } from 'node:fs/promises'
import { join } from 'node:path'
import type { IdMap } from '../sandbox/id-map.ts'
import { removeTree } from '../sandbox/id-range.ts'

/** Folders of things half made. Each is named by the process that makes it, so that the next one knows what is left. */
export interface Staging {
  make(): Promise<string>
  remove(directory: string): Promise<void>
}

/** Opens the staging folder and removes what processes that are no more have left in it. */
export async function openStaging(directory: string, map: IdMap): Promise<Staging> {
  // Passable, not readable: names that can't be listed can't be guessed.
  await mkdir(directory, { recursive: true, mode: 0o711 })
  const instance = `${process.pid}-${await startOf(process.pid)}`
  for (const name of await readdir(directory)) {
    const [pid, start] = name.split('-')
    if (start !== (await startOf(Number(pid)))) await removeTree(map, join(directory, name))
  }
  return {
    async make() {
      const made = join(directory, `${instance}-${randomUUID()}`)
      await mkdir(made, { mode: 0o711 })
      return made
    },
    remove: (made) => removeTree(map, made),
  }
}

/** Puts a folder into its place at once, or finds that another was quicker. */
export async function place(made: string, at: string): Promise<boolean> {
  try {
    await rename(made, at)
    return true
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code
    if (code === 'ENOTEMPTY' || code === 'EEXIST') return false
    throw error
  }
}

/** When a process started, in clock ticks since boot: with its id that is unique until the next boot. */
async function startOf(pid: number): Promise<string | undefined> {
  // No such process: there is no other reason why it can't be read.
  const stat = await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => undefined)
  const fields = stat?.slice(stat.lastIndexOf(')') + 2).split(' ')
  // One that is dead and not yet waited for makes nothing any more.
  return fields?.[0] === 'Z' ? undefined : fields?.[19]
}
