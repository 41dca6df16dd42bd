import { describe, expect, test } from 'vitest'
import { seccompProgram } from './seccomp.ts'
import { type Architecture, syscalls } from './syscalls.ts'

const ALLOW = 0x7fff0000
const EPERM = 0x00050001
const ENOSYS = 0x00050026
const EPROTONOSUPPORT = 0x0005005d
const EAFNOSUPPORT = 0x00050061

/** Runs a program as the kernel would: the answer to one system call. */
function judge(program: Buffer, audit: number, number: number, ...args: number[]): number {
  const data = Buffer.alloc(64)
  data.writeUInt32LE(number, 0)
  data.writeUInt32LE(audit, 4)
  for (const [at, value] of args.entries()) data.writeBigUInt64LE(BigInt.asUintN(64, BigInt(value)), 16 + at * 8)
  let accumulator = 0
  for (let at = 0; at < program.length; at += 8) {
    const code = program.readUInt16LE(at)
    const value = program.readUInt32LE(at + 4)
    const jump = (holds: boolean) => {
      at += 8 * program.readUInt8(at + (holds ? 2 : 3))
    }
    if (code === 0x20) accumulator = data.readUInt32LE(value)
    else if (code === 0x54) accumulator = (accumulator & value) >>> 0
    else if (code === 0x15) jump(accumulator === value)
    else if (code === 0x25) jump(accumulator > value)
    else if (code === 0x45) jump((accumulator & value) !== 0)
    else if (code === 0x06) return value
    else throw new Error(`Unknown instruction ${code.toString(16)}`)
  }
  throw new Error('The program ran past its end')
}

describe.each<Architecture>(['x64', 'arm64'])('the filter for %s', (architecture) => {
  const program = seccompProgram(architecture)
  const { audit, newest, clone, ioctl, socket, missing, refused } = syscalls[architecture]
  const call = (number: number, ...args: number[]) => judge(program, audit, number, ...args)

  test('refuses what it lists and lets the rest through', () => {
    const special = new Set([...refused, ...missing, clone, ioctl, socket])
    for (let number = 0; number <= newest; number++) {
      if (!special.has(number)) expect([number, call(number, -1, -1, -1)]).toEqual([number, ALLOW])
    }
    for (const number of refused) expect(call(number)).toBe(EPERM)
    for (const number of missing) expect(call(number)).toBe(ENOSYS)
  })

  test('knows no call that is newer, of another convention or of the x32 table', () => {
    expect(call(newest + 1)).toBe(ENOSYS)
    expect(call(0x40000000 + 1)).toBe(ENOSYS)
    expect(call(0xffffffff)).toBe(ENOSYS)
    expect(judge(program, 0x40000003, 1)).toBe(ENOSYS)
  })

  test('makes processes and threads, but no namespace, whatever else is asked for', () => {
    const thread = 0x3d0f00
    expect(call(clone, thread)).toBe(ALLOW)
    expect(call(clone, 17)).toBe(ALLOW)
    for (const flag of [0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000]) {
      expect(call(clone, flag)).toBe(EPERM)
      expect(call(clone, flag | thread)).toBe(EPERM)
    }
  })

  test('pushes nothing back into a terminal', () => {
    expect(call(ioctl, 0, 0x5401)).toBe(ALLOW)
    expect(call(ioctl, 0, 0x5412)).toBe(EPERM)
    // The kernel looks at the low half only.
    expect(call(ioctl, 0, 0x1_0000_5412)).toBe(EPERM)
  })

  test('judges a socket by family, kind and protocol', () => {
    expect(call(socket, 1, 5, 0)).toBe(ALLOW)
    expect(call(socket, 2, 1 | 0o2004000, 6)).toBe(ALLOW)
    expect(call(socket, 10, 2, 17)).toBe(ALLOW)
    expect(call(socket, 16, 3, 0)).toBe(ALLOW)
    expect(call(socket, 16, 3, 9)).toBe(EPROTONOSUPPORT)
    expect(call(socket, 2, 3, 0)).toBe(EPERM)
    expect(call(socket, 2, 3 | 0o2000000, 255)).toBe(EPERM)
    expect(call(socket, 2, 2, 1)).toBe(EPROTONOSUPPORT)
    expect(call(socket, 17, 3, 0)).toBe(EAFNOSUPPORT)
    expect(call(socket, 0x1_0000_0011, 3, 0)).toBe(EAFNOSUPPORT)
  })
})

test('a machine without a list is refused by name', () => {
  expect(() => seccompProgram('riscv64')).toThrow('no system call filter for riscv64; x64 and arm64 have one')
})
