import { execFile } from 'node:child_process'
import { access, chmod, constants, copyFile, mkdir, mkdtemp, rename, rm } from 'node:fs/promises'
import { tmpdir, userInfo } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { openIdMap } from '../../packages/worker/src/sandbox/id-map.ts'
import { openToRange, runInRange } from '../../packages/worker/src/sandbox/id-range.ts'

const run = promisify(execFile)

const PACKAGES = 'bash,procps,python3'

/** Where the suites' drivers work, next to the image: each under a name of its own, like workers on one host. */
export function testFolder(): string {
  return join(tmpdir(), `paws-conformance-${userInfo().uid}`)
}

/** A small Debian with Python, unpacked under the ids of sandboxes; made once for each user of this machine. */
export async function testImage(): Promise<string> {
  const folder = testFolder()
  const final = join(folder, `image-${(await openIdMap()).uid}-${PACKAGES}`)
  const image = join(final, 'root')
  if (await exists(image)) return image
  await mkdir(folder, { recursive: true, mode: 0o711 })
  const archive = await testArchive()
  const staging = await mkdtemp(join(folder, 'unpacking-'))
  await openToRange(staging)
  // The folders above the archive may be closed to the ids that unpack it.
  await copyFile(archive, join(staging, 'image.tar'), constants.COPYFILE_FICLONE)
  const unpack = 'mkdir root && exec tar -xpf image.tar --numeric-owner --exclude=./dev/* -C root'
  await runInRange(await openIdMap(), ['sh', '-c', unpack], { cwd: staging })
  await rm(join(staging, 'image.tar'))
  await chmod(staging, 0o755)
  // Another suite may have been faster; its image is the same.
  await rename(staging, final).catch((error: NodeJS.ErrnoException) => {
    if (error.code !== 'ENOTEMPTY' && error.code !== 'EEXIST') throw error
  })
  return image
}

/** The same Debian as an archive, which anybody can unpack under ids of their own. */
export async function testArchive(): Promise<string> {
  const archive = join(tmpdir(), `paws-conformance-${PACKAGES}.tar`)
  if (await exists(archive)) return archive
  const part = `${archive}.${process.pid}.tar`
  const mode = process.getuid?.() === 0 ? 'root' : 'unshare'
  await run('mmdebstrap', [`--mode=${mode}`, '--variant=minbase', `--include=${PACKAGES}`, 'bookworm', part])
  await rename(part, archive)
  return archive
}

async function exists(path: string): Promise<boolean> {
  return access(path).then(
    () => true,
    () => false,
  )
}
