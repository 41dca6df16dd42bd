import { access, constants } from 'node:fs/promises'
import { join } from 'node:path'
import type { Finding } from './finding.ts'

/** What `up` needs, and which Debian package has it. */
const programs: [program: string, debianPackage: string, why: string][] = [
  ['bwrap', 'bubblewrap', 'sandboxes are made with it'],
  ['mkfs.ext4', 'e2fsprogs', 'a sandbox’s disk is made with it'],
  ['setpriv', 'util-linux', 'it ends the processes of "up" with their supervisor'],
  ['flock', 'util-linux', 'it keeps two from using the same data'],
  ['mmdebstrap', 'mmdebstrap', 'snapshots are built with it'],
  ['mksquashfs', 'squashfs-tools', 'snapshots are packed with it'],
  ['gcc', 'gcc libc6-dev', 'it compiles the agent inside sandboxes'],
]
const forUsers: typeof programs = [['newuidmap', 'uidmap', 'it gives sandboxes their user ids']]

export async function checkPrograms(): Promise<Finding[]> {
  const wanted = process.getuid?.() === 0 ? programs : [...programs, ...forUsers]
  const found = await Promise.all(wanted.map(([program]) => isInstalled(program)))
  const missing = wanted.filter((_, index) => !found[index])
  if (missing.length === 0) {
    return [{ name: 'Programs', state: 'ok', found: wanted.map(([program]) => program).join(', ') }]
  }
  return missing.map(([program, debianPackage, why]) => ({
    name: program,
    state: 'missing',
    found: 'not installed',
    means: `${why}.`,
    mend: `As root: apt-get install --no-install-recommends ${debianPackage}`,
  }))
}

async function isInstalled(program: string): Promise<boolean> {
  for (const folder of ['/usr/local/sbin', '/usr/local/bin', '/usr/sbin', '/usr/bin', '/sbin', '/bin']) {
    const there = await access(join(folder, program), constants.X_OK).then(
      () => true,
      () => false,
    )
    if (there) return true
  }
  return false
}
