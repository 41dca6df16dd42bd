import { spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { chmod, chown, mkdir, open, rm, rmdir, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import type { Readable } from 'node:stream'
import { setTimeout as sleep } from 'node:timers/promises'
import { openIdMap } from '../packages/worker/src/sandbox/id-map.ts'

/*
 * A sandbox started by hand: the same namespaces, mounts and filter as the process driver, from util-linux's programs
 * and a shell, with nothing made ahead but the slot. Benchmarks put their figures beside this one's. Needs root.
 */

export interface HandChainOptions {
  /** An unpacked image that belongs to root's sandboxes */
  imageDir: string
  /** A compiled system call filter */
  seccomp: string
}

export interface HandChainTimes {
  /** Making the slot: network and user namespaces */
  slotMs: number
  /** From the start of the chain, cgroups included, to the first byte of `echo hello` */
  firstByteMs: number
}

const { uid, gid, count } = await openIdMap()
const CGROUPS = ['cpu', 'memory', 'pids'].map((name) => `/sys/fs/cgroup/${name}`)
const CAPABILITIES = 'CHOWN DAC_OVERRIDE FOWNER FSETID SETUID SETGID KILL SYS_CHROOT NET_BIND_SERVICE SETFCAP'.split(
  ' ',
)

const SLOT = `
  echo mapped?; read mapped
  exec setpriv --reuid 0 --regid 0 --clear-groups sh -c '
    ip link set lo up
    ip route add local 0.0.0.0/0 dev lo
    ip -6 route add local ::/0 dev lo
    echo 0 > /proc/sys/net/ipv4/ip_unprivileged_port_start
    unshare --user sleep infinity &
    until [ "$(readlink /proc/$!/ns/user)" != "$(readlink /proc/$$/ns/user)" ]; do :; done
    echo "0 0 65536" > /proc/$!/gid_map; echo "0 0 65536" > /proc/$!/uid_map
    echo 1 > /proc/sys/user/max_user_namespaces
    echo $!; read end; kill $!'`

const START = `
  while [ "$1" != -- ]; do mkdir $1; echo 0 > $1/cgroup.procs; shift; done; shift
  exec nsenter --user=/proc/self/fd/3 --net=/proc/self/fd/4 unshare -m --propagation private sh -c '
    mount -t overlay overlay -o userxattr,lowerdir=$1,upperdir=$2/u,workdir=$2/w $2/m && shift 2 &&
    exec nsenter --user=/proc/self/fd/5 sh -c "exec 3<&- 4<&- 5<&-; exec \\"\\$@\\"" sh "$@"' sh "$@"`

/** One slot, one sandbox, one `echo hello`; everything is gone again when this resolves. */
export async function handChain({ imageDir, seccomp }: HandChainOptions): Promise<HandChainTimes> {
  const name = `paws-hand-${randomBytes(6).toString('hex')}`
  const folder = join(tmpdir(), name)
  const groups = CGROUPS.map((group) => join(group, name))
  for (const part of ['', 'u', 'w', 'm']) {
    await mkdir(join(folder, part))
    await chown(join(folder, part), uid, gid)
  }
  await chmod(folder, 0o755)
  const began = performance.now()
  const slot = await makeSlot()
  const program = await open(seccomp)
  const started = performance.now()
  const chain = spawn('sh', ['-c', START, 'sh', ...groups, '--', imageDir, folder, ...bubblewrap(join(folder, 'm'))], {
    stdio: ['ignore', 'pipe', 'inherit', ...slot.namespaces.map((handle) => handle.fd), program.fd],
  })
  const ended = once(chain, 'close')
  const output = await Promise.race([once(chain.stdout as Readable, 'data'), ended])
  const firstByteMs = performance.now() - started
  if (`${output[0]}` !== 'hello\n') throw new Error('The chain by hand said nothing.')
  await ended
  await Promise.all([program.close(), slot.end()])
  await Promise.all(groups.map(removeGroup))
  await rm(folder, { recursive: true })
  return { slotMs: started - began, firstByteMs }
}

async function makeSlot() {
  const child = spawn('unshare', ['--user', '--net', '--keep-caps', 'sh', '-c', SLOT], {
    stdio: ['pipe', 'pipe', 'inherit'],
  })
  const lines = createInterface(child.stdout)[Symbol.asyncIterator]()
  await lines.next()
  await writeFile(`/proc/${child.pid}/gid_map`, `0 ${gid} ${count}\n`)
  await writeFile(`/proc/${child.pid}/uid_map`, `0 ${uid} ${count}\n`)
  child.stdin.write('\n')
  const { value: nested } = await lines.next()
  const files = [`${child.pid}/ns/user`, `${child.pid}/ns/net`, `${nested}/ns/user`]
  const namespaces = await Promise.all(files.map((file) => open(`/proc/${file}`)))
  const end = async () => {
    child.stdin.end('\n')
    await Promise.all([once(child, 'exit'), ...namespaces.map((handle) => handle.close())])
  }
  return { namespaces, end }
}

function bubblewrap(root: string): string[] {
  return [
    ...['bwrap', '--bind', root, '/', '--proc', '/proc', '--dev', '/dev', '--perms', '1777', '--tmpfs', '/tmp'],
    ...['--tmpfs', '/run', '--unshare-pid', '--unshare-ipc', '--unshare-uts', '--unshare-cgroup'],
    ...['--die-with-parent', '--new-session', '--clearenv', '--seccomp', '6', '--cap-drop', 'ALL'],
    ...CAPABILITIES.flatMap((name) => ['--cap-add', `CAP_${name}`]),
    ...['--', '/bin/sh', '-c', 'echo hello'],
  ]
}

// A group stays busy for some milliseconds after its last process has gone.
async function removeGroup(directory: string): Promise<void> {
  try {
    await rmdir(directory)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EBUSY') throw error
    await sleep(2)
    await removeGroup(directory)
  }
}
