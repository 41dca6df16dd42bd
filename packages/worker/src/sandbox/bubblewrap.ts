import type { SandboxSpec } from './driver.ts'

/** The descriptors that the slot helper leaves open for bubblewrap; they are told in slot.h too. */
const AGENT_STREAM = 4
const AGENT_BINARY = 5
const SECCOMP = 6

/** What apt-get and chown need, each over the sandbox's own ids only, and none over its network. */
const capabilities = [
  'CAP_CHOWN',
  'CAP_DAC_OVERRIDE',
  'CAP_FOWNER',
  'CAP_FSETID',
  'CAP_SETUID',
  'CAP_SETGID',
  'CAP_KILL',
  'CAP_SYS_CHROOT',
  'CAP_NET_BIND_SERVICE',
  'CAP_SETFCAP',
]

/** Where the agent lies inside: on a tmpfs, so that it is never part of a snapshot. */
const AGENT = '/run/paws-guest'

/**
 * The command line that turns a slot into a sandbox with the guest agent as process 1.
 * The slot helper has mounted the root filesystem over /tmp of a mount namespace of its own.
 */
export function bubblewrapCommand(program: string, { hostname, memoryMB }: SandboxSpec): string[] {
  // Files in memory count as memory: filled to the last page, nothing could be killed to make room.
  const size = ['--size', `${Math.floor(memoryMB / 2) * 1024 * 1024}`]
  return [
    program,
    ...['--bind', '/tmp', '/', '--proc', '/proc', '--dev', '/dev'],
    // The slot helper's, which has a limit.
    ...['--dev-bind', '/dev/pts', '/dev/pts'],
    ...[...size, '--perms', '1777', '--tmpfs', '/dev/shm', ...size, '--perms', '0755', '--tmpfs', '/run'],
    ...['--perms', '0555', '--file', `${AGENT_BINARY}`, AGENT],
    ...['--unshare-pid', '--unshare-ipc', '--unshare-uts', '--unshare-cgroup', '--hostname', hostname],
    ...['--die-with-parent', '--new-session', '--as-pid-1', '--chdir', '/workspace'],
    // As uid 0 bubblewrap would keep every capability that isn't dropped first.
    ...['--seccomp', `${SECCOMP}`, '--cap-drop', 'ALL'],
    ...capabilities.flatMap((capability) => ['--cap-add', capability]),
    ...['--', AGENT, '--fd', `${AGENT_STREAM}`],
  ]
}
