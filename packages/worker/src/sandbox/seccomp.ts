import { endianness } from 'node:os'
import { type Architecture, syscalls } from './syscalls.ts'

/*
 * A program of classic BPF that the kernel runs at every system call of a sandbox. It is the second fence: what it
 * refuses mostly needs a capability or a namespace that the sandbox hasn't got either. System calls newer than this list
 * answer ENOSYS until somebody has judged them.
 */

// Offsets in struct seccomp_data; of an argument, its low 32 bits on a little-endian machine.
const NUMBER = 0
const ARCHITECTURE = 4
const argument = (index: number) => 16 + 8 * index

const LOAD = 0x20
const AND = 0x54
const JUMP_EQUAL = 0x15
const JUMP_GREATER = 0x25
const JUMP_ANY_BIT = 0x45
const RETURN = 0x06

const ALLOW = 0x7fff0000
const refuse = (errno: number) => 0x00050000 | errno
const EPERM = refuse(1)
const ENOSYS = refuse(38)
const EPROTONOSUPPORT = refuse(93)
const EAFNOSUPPORT = refuse(97)

const AF_UNIX = 1
const AF_INET = 2
const AF_INET6 = 10
const AF_NETLINK = 16
const SOCK_STREAM = 1
const SOCK_DGRAM = 2
const IPPROTO_TCP = 6
const IPPROTO_UDP = 17
const NETLINK_ROUTE = 0
const TIOCSTI = 0x5412
const TIOCLINUX = 0x541c
/** CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID and NEWNET */
const NEW_NAMESPACES = 0x7e020000

interface Instruction {
  code: number
  /** Instructions to skip when the condition holds, and when not */
  yes: number
  no: number
  value: number
}

const load = (offset: number): Instruction => ({ code: LOAD, yes: 0, no: 0, value: offset })
const mask = (bits: number): Instruction => ({ code: AND, yes: 0, no: 0, value: bits })
const answer = (value: number): Instruction => ({ code: RETURN, yes: 0, no: 0, value })

/** `then` runs only when the accumulator meets the condition; otherwise the program goes on behind it. */
function when(code: number, value: number, then: Instruction[]): Instruction[] {
  return [{ code, yes: 0, no: then.length, value }, ...then]
}

/** The accumulator must be one of `values`, or the call is answered with `otherwise`. */
function oneOf(values: number[], otherwise: number): Instruction[] {
  const tests = values.map((value, at) => ({ code: JUMP_EQUAL, yes: values.length - at, no: 0, value }))
  return [...tests, answer(otherwise)]
}

/** The filter for this machine or another, as bytes that bubblewrap's --seccomp reads. */
export function seccompProgram(architecture = process.arch): Buffer {
  const known = syscalls[architecture as Architecture]
  if (!known) throw new Error(`Sandboxes have no system call filter for ${architecture}; x64 and arm64 have one.`)
  if (endianness() !== 'LE') throw new Error('The system call filter is written for little-endian machines.')
  return encode([
    load(ARCHITECTURE),
    ...oneOf([known.audit], ENOSYS),
    load(NUMBER),
    // On x86 this also refuses the numbers of the x32 ABI, which would get round everything below.
    ...when(JUMP_GREATER, known.newest, [answer(ENOSYS)]),
    ...known.missing.flatMap((number) => when(JUMP_EQUAL, number, [answer(ENOSYS)])),
    ...known.refused.flatMap((number) => when(JUMP_EQUAL, number, [answer(EPERM)])),
    ...when(JUMP_EQUAL, known.clone, [
      load(argument(0)),
      ...when(JUMP_ANY_BIT, NEW_NAMESPACES, [answer(EPERM)]),
      answer(ALLOW),
    ]),
    ...when(JUMP_EQUAL, known.ioctl, [load(argument(1)), ...noneOf([TIOCSTI, TIOCLINUX]), answer(ALLOW)]),
    ...when(JUMP_EQUAL, known.socket, sockets()),
    answer(ALLOW),
  ])
}

function noneOf(values: number[]): Instruction[] {
  return values.flatMap((value) => when(JUMP_EQUAL, value, [answer(EPERM)]))
}

/** Unix sockets, TCP, UDP, and the netlink family that getifaddrs(3) asks. */
function sockets(): Instruction[] {
  return [
    load(argument(0)),
    ...when(JUMP_EQUAL, AF_UNIX, [answer(ALLOW)]),
    ...when(JUMP_EQUAL, AF_NETLINK, [load(argument(2)), ...oneOf([NETLINK_ROUTE], EPROTONOSUPPORT), answer(ALLOW)]),
    ...oneOf([AF_INET, AF_INET6], EAFNOSUPPORT),
    load(argument(1)),
    mask(0xf),
    ...oneOf([SOCK_STREAM, SOCK_DGRAM], EPERM),
    load(argument(2)),
    ...oneOf([0, IPPROTO_TCP, IPPROTO_UDP], EPROTONOSUPPORT),
    answer(ALLOW),
  ]
}

function encode(program: Instruction[]): Buffer {
  const bytes = Buffer.alloc(program.length * 8)
  for (const [at, { code, yes, no, value }] of program.entries()) {
    if (yes > 255 || no > 255) throw new Error('A jump of the system call filter is too long.')
    bytes.writeUInt16LE(code, at * 8)
    bytes.writeUInt8(yes, at * 8 + 2)
    bytes.writeUInt8(no, at * 8 + 3)
    bytes.writeUInt32LE(value >>> 0, at * 8 + 4)
  }
  return bytes
}
