import { describe, expect, test } from 'vitest'
import { drivers } from './drivers.ts'
import { openSuite, python } from './suite.ts'

const EPERM = 1
const ENOSYS = 38
const EPROTONOSUPPORT = 93
const EAFNOSUPPORT = 97

/** Runs `call(name, ...arguments)`, by the numbers of both architectures, and prints each errno. */
const CALLS = `
import ctypes, json, platform, socket
libc = ctypes.CDLL(None, use_errno=True)
arm = platform.machine() == "aarch64"
numbers = {
  "unshare": (272, 97), "setns": (308, 268), "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41),
  "open_tree": (428, 428), "fsopen": (430, 430), "mount_setattr": (442, 442), "clone": (56, 220), "clone3": (435, 435),
  "keyctl": (250, 219), "add_key": (248, 217), "bpf": (321, 280), "perf_event_open": (298, 241),
  "userfaultfd": (323, 282), "io_uring_setup": (425, 425), "init_module": (175, 105), "kexec_load": (246, 104),
  "open_by_handle_at": (304, 265), "reboot": (169, 142), "settimeofday": (164, 170), "syslog": (103, 116),
  "newer_than_the_filter": (700, 700), "x32_getpid": (0x40000000 + 39, 700),
}
def call(name, *args):
  ctypes.set_errno(0)
  made = libc.syscall(ctypes.c_long(numbers[name][arm]), *[ctypes.c_long(a) for a in args])
  return ctypes.get_errno() if made == -1 else 0
def sock(*args):
  try: socket.socket(*args).close()
  except OSError as e: return e.errno
  return 0
`

describe.each(Object.entries(drivers).filter(([, { sharesKernel }]) => sharesKernel))(
  '%s: the host kernel',
  (_, underTest) => {
    const suite = openSuite(underTest)
    const errnos = async (expressions: Record<string, string>) => {
      const sandbox = await suite.start()
      const tried = Object.entries(expressions).map(([name, expression]) => `${JSON.stringify(name)}: ${expression}`)
      return python<Record<string, number>>(sandbox, `${CALLS}\nprint(json.dumps({${tried.join(', ')}}))`)
    }

    test('makes and joins no namespace for a sandbox', async () => {
      const flags = {
        ns: 0x20000,
        cgroup: 0x2000000,
        uts: 0x4000000,
        ipc: 0x8000000,
        user: 0x10000000,
        pid: 0x20000000,
        net: 0x40000000,
      }
      const unshared = Object.entries(flags).map(([name, flag]) => [`unshare ${name}`, `call("unshare", ${flag})`])
      const cloned = Object.entries(flags).map(([name, flag]) => [
        `clone ${name}`,
        `call("clone", ${flag | 17}, 0, 0, 0, 0)`,
      ])
      const seen = await errnos({
        ...Object.fromEntries([...unshared, ...cloned]),
        setns: 'call("setns", __import__("os").open("/proc/self/ns/net", 0), 0)',
        clone3: 'call("clone3", 0, 0)',
      })
      expect(seen).toEqual({ ...Object.fromEntries(Object.keys(seen).map((name) => [name, EPERM])), clone3: ENOSYS })
    })

    test('mounts nothing', async () => {
      const names = ['mount', 'umount2', 'pivot_root', 'open_tree', 'fsopen', 'mount_setattr']
      const seen = await errnos(Object.fromEntries(names.map((name) => [name, `call("${name}", 0, 0, 0, 0, 0)`])))
      expect(seen).toEqual(Object.fromEntries(names.map((name) => [name, EPERM])))
    })

    test('keeps its keys, its programs, its modules and its clock', async () => {
      const names = [
        ...['keyctl', 'add_key', 'bpf', 'perf_event_open', 'userfaultfd', 'init_module', 'kexec_load'],
        ...['open_by_handle_at', 'reboot', 'settimeofday', 'syslog'],
      ]
      const seen = await errnos(Object.fromEntries(names.map((name) => [name, `call("${name}", 0, 0, 0, 0, 0)`])))
      expect(seen).toEqual(Object.fromEntries(names.map((name) => [name, EPERM])))
    })

    test('has no way past the filter', async () => {
      expect(
        await errnos({
          io_uring: 'call("io_uring_setup", 8, 0)',
          newer: 'call("newer_than_the_filter")',
          x32: 'call("x32_getpid")',
          tiocsti: '(lambda: (libc.ioctl(0, 0x5412, b"x"), ctypes.get_errno())[1])()',
        }),
      ).toEqual({ io_uring: ENOSYS, newer: ENOSYS, x32: ENOSYS, tiocsti: EPERM })
    })

    test('opens sockets of the usual kinds only', async () => {
      const allowed = {
        tcp: 'sock(socket.AF_INET, socket.SOCK_STREAM)',
        udp6: 'sock(socket.AF_INET6, socket.SOCK_DGRAM)',
        unix: 'sock(socket.AF_UNIX, socket.SOCK_SEQPACKET)',
        route: 'sock(16, socket.SOCK_RAW, 0)',
      }
      const refused = {
        packet: ['sock(17, socket.SOCK_RAW, 0x300)', EAFNOSUPPORT],
        vsock: ['sock(40, socket.SOCK_STREAM)', EAFNOSUPPORT],
        alg: ['sock(38, socket.SOCK_SEQPACKET)', EAFNOSUPPORT],
        bluetooth: ['sock(31, socket.SOCK_RAW)', EAFNOSUPPORT],
        can: ['sock(29, socket.SOCK_RAW)', EAFNOSUPPORT],
        raw: ['sock(socket.AF_INET, socket.SOCK_RAW, 1)', EPERM],
        raw6: ['sock(socket.AF_INET6, socket.SOCK_RAW, 58)', EPERM],
        oldPacket: ['sock(socket.AF_INET, 10, 0x300)', EPERM],
        ping: ['sock(socket.AF_INET, socket.SOCK_DGRAM, 1)', EPROTONOSUPPORT],
        sctp: ['sock(socket.AF_INET, socket.SOCK_STREAM, 132)', EPROTONOSUPPORT],
        netfilter: ['sock(16, socket.SOCK_RAW, 12)', EPROTONOSUPPORT],
      } as const
      const expressions = Object.fromEntries(Object.entries(refused).map(([name, [expression]]) => [name, expression]))
      expect(await errnos({ ...allowed, ...expressions })).toEqual({
        ...Object.fromEntries(Object.keys(allowed).map((name) => [name, 0])),
        ...Object.fromEntries(Object.entries(refused).map(([name, [, errno]]) => [name, errno])),
      })
    })

    test('leaves no capability but those over files, ids and signals, and no way to more', async () => {
      const sandbox = await suite.start()
      const status = await python<Record<string, string>>(
        sandbox,
        'import json\nprint(json.dumps({k: v.strip() for k, _, v in (l.partition(":") for l in open("/proc/self/status"))}))',
      )
      expect(status).toMatchObject({
        CapEff: '00000000800404fb',
        CapPrm: '00000000800404fb',
        NoNewPrivs: '1',
        Seccomp: '2',
      })
      // Bubblewrap needs CAP_SYS_ADMIN and CAP_SETPCAP; without new privileges nobody after it can gain them.
      expect(status.CapBnd).toBe('00000000802405fb')
    })
  },
)
