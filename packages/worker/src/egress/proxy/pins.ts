import type { Pin } from '../messages.ts'

/** A wildcard's names are the sandbox's to choose: without a bound each would be remembered. */
const MOST_PINNED = 4096

/** Which name has which made-up address in one sandbox; an address once given keeps its name. */
export interface Pins {
  restore(earlier: Pin[]): void
  addressOf(name: string): string | undefined
  nameOf(address: string): string | undefined
  pin(name: string): string
  /** Whether there have been too many names to take one more that a sandbox has thought of */
  full(): boolean
}

/** Addresses are of 198.18.0.0/15, which is for measuring networks: nothing on the internet has one. */
export function createPins(): Pins {
  const byName = new Map<string, string>()
  const byAddress = new Map<string, string>()
  let next = 1
  const keep = (name: string, address: string) => {
    byName.set(name, address)
    byAddress.set(address, name)
  }
  const unused = () => {
    while (byAddress.has(addressAt(next))) next++
    return addressAt(next)
  }
  return {
    restore: (earlier) => {
      for (const { name, address } of earlier) keep(name, address)
    },
    addressOf: (name) => byName.get(name),
    nameOf: (address) => byAddress.get(address),
    pin: (name) => {
      const address = unused()
      keep(name, address)
      return address
    },
    full: () => byName.size >= MOST_PINNED,
  }
}

const addressAt = (index: number) => `198.${18 + (index >> 16)}.${(index >> 8) & 255}.${index & 255}`
