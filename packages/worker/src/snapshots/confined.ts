/**
 * A command for `runInRange` that reads what a stranger may have made. It sees the machine's programs and its working
 * directory, and nothing else: a fault in it leads neither to other images nor to a network.
 */
export function confined(command: string[]): string[] {
  const programs = ['/usr', '/bin', '/lib', '/lib64'].flatMap((path) => ['--ro-bind-try', path, path])
  return [
    // Taken as it stands: bubblewrap would make the path whole, and the folders above it may be closed.
    ...['sh', '-c', 'mount --no-canonicalize --bind . /tmp && cd /tmp && exec "$@"', 'sh'],
    ...['bwrap', ...programs, '--dev-bind', '/dev/null', '/dev/null', '--bind', '/tmp', '/work', '--chdir', '/work'],
    ...['--unshare-net', '--unshare-pid', '--die-with-parent', '--cap-drop', 'ALL'],
    ...capabilities.flatMap((capability) => ['--cap-add', capability]),
    ...['--', ...command],
  ]
}

/** What it takes to write files of any owner, over the sandboxes' ids only. */
const capabilities = ['CAP_CHOWN', 'CAP_DAC_OVERRIDE', 'CAP_FOWNER', 'CAP_FSETID', 'CAP_SETFCAP']
