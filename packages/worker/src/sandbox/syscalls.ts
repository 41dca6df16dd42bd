/** Linux system calls by number, as far as the filter of sandboxes speaks of them. */
export interface Syscalls {
  /** AUDIT_ARCH_… of the one calling convention that is let in */
  audit: number
  /** The highest number that has been judged */
  newest: number
  clone: number
  ioctl: number
  socket: number
  /** Answered as if this kernel didn't have them, so that programs fall back to what they used before */
  missing: number[]
  refused: number[]
}

export type Architecture = 'x64' | 'arm64'

/** The numbers on x64 and on arm64; null where it doesn't exist. */
const refused: { [name: string]: [x64: number, arm64: number | null] } = {
  mount: [165, 40],
  umount2: [166, 39],
  pivot_root: [155, 41],
  open_tree: [428, 428],
  move_mount: [429, 429],
  fsopen: [430, 430],
  fsconfig: [431, 431],
  fsmount: [432, 432],
  fspick: [433, 433],
  mount_setattr: [442, 442],
  setns: [308, 268],
  unshare: [272, 97],
  keyctl: [250, 219],
  add_key: [248, 217],
  request_key: [249, 218],
  bpf: [321, 280],
  perf_event_open: [298, 241],
  userfaultfd: [323, 282],
  fanotify_init: [300, 262],
  open_by_handle_at: [304, 265],
  kexec_load: [246, 104],
  kexec_file_load: [320, 294],
  init_module: [175, 105],
  finit_module: [313, 273],
  delete_module: [176, 106],
  swapon: [167, 224],
  swapoff: [168, 225],
  reboot: [169, 142],
  acct: [163, 89],
  quotactl: [179, 60],
  quotactl_fd: [443, 443],
  iopl: [172, null],
  ioperm: [173, null],
  modify_ldt: [154, null],
  uselib: [134, null],
  settimeofday: [164, 170],
  clock_settime: [227, 112],
  syslog: [103, 116],
  move_pages: [279, 239],
  migrate_pages: [256, 238],
  kcmp: [312, 272],
  lookup_dcookie: [212, 18],
  vhangup: [153, 58],
}

const numbers = (list: typeof refused, column: 0 | 1) => Object.values(list).flatMap((row) => row[column] ?? [])

/**
 * clone3 hides its flags from a filter; io_uring would carry out calls that a filter never sees; of io_setup's contexts
 * the whole host has a fixed number.
 */
const missing: { [name: string]: [x64: number, arm64: number] } = {
  clone3: [435, 435],
  io_uring_setup: [425, 425],
  io_uring_enter: [426, 426],
  io_uring_register: [427, 427],
  io_setup: [206, 0],
}

export const syscalls: Record<Architecture, Syscalls> = {
  x64: {
    audit: 0xc000003e,
    newest: 462,
    clone: 56,
    ioctl: 16,
    socket: 41,
    missing: numbers(missing, 0),
    refused: numbers(refused, 0),
  },
  arm64: {
    audit: 0xc00000b7,
    newest: 462,
    clone: 220,
    ioctl: 29,
    socket: 198,
    missing: numbers(missing, 1),
    refused: numbers(refused, 1),
  },
}
