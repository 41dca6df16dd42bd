import { execFile } from 'node:child_process'
import { access, constants, open, readFile } from 'node:fs/promises'
import { basename } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { promisify } from 'node:util'
import type { IdMap } from './id-map.ts'

const run = promisify(execFile)

/** Makes the filesystems that sandboxes write to. */
export interface Disks {
  /** Whether a sandbox gets a filesystem of its own size; otherwise it writes to a folder of the host */
  enforced: boolean
  limitations: string[]
  /** Writes an empty filesystem of `sizeMB`, which takes space only as it fills */
  create(file: string, sizeMB: number): Promise<void>
  /** One that the slot helper may copy, which is cheaper than making another */
  template?: { file: string; sizeMB: number }
}

/** @param usual where the template of the usual disk goes, and its size */
export async function openDisks(ids: IdMap, usual: { file: string; sizeMB: number }): Promise<Disks> {
  const enforced = process.getuid?.() === 0 && (await isWritable('/dev/loop-control'))
  const create = async (file: string, sizeMB: number) => {
    const handle = await open(file, 'w', 0o600)
    await handle.truncate(sizeMB * 1024 * 1024)
    await handle.close()
    // A throw-away filesystem needs no journal, and no blocks that only root outside might use.
    const options = `root_owner=${ids.uid}:${ids.gid},lazy_itable_init=1,nodiscard`
    await run('mkfs.ext4', ['-q', '-F', '-O', '^has_journal', '-m', '0', '-E', options, file], {
      env: { PATH: '/usr/sbin:/sbin:/usr/bin:/bin' },
    })
  }
  if (enforced) await create(usual.file, usual.sizeMB)
  return {
    enforced,
    limitations: enforced
      ? []
      : ['Disk limits of sandboxes are not enforced: that needs root and loop devices (/dev/loop-control).'],
    create,
    template: enforced ? usual : undefined,
  }
}

/** Waits until the kernel has let go of an image, which it does shortly after its last mount went. */
export async function untilDetached(device: string, file: string): Promise<void> {
  const backing = `/sys/block/${basename(device)}/loop/backing_file`
  for (let waitMs = 1; waitMs < 4000; waitMs *= 2) {
    const now = await readFile(backing, 'utf8').catch(() => '') // Gone: nothing is attached
    if (now.trim() !== file) return
    await sleep(waitMs)
  }
  throw new Error(`${device} still holds ${file} although no process of its sandbox is left.`)
}

async function isWritable(file: string): Promise<boolean> {
  return access(file, constants.W_OK).then(
    () => true,
    () => false,
  )
}
