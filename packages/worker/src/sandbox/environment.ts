import type { Command } from './driver.ts'

/** What every program inside finds in its environment; the worker's own never gets in. */
const BASE = {
  PATH: '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin',
  HOME: '/root',
  LANG: 'C.UTF-8',
}

/** The command as the guest agent gets it: its own variables win over the usual ones. */
export function withEnvironment(command: Command): Command {
  return { ...command, env: { ...BASE, ...(command.pty && { TERM: 'xterm-256color' }), ...command.env } }
}
