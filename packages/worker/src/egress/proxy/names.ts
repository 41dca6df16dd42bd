import type { EgressReason } from '@paws/api'
import type { FromEgress, Pin } from '../messages.ts'
import { createPins } from './pins.ts'
import { plainName, type Rules } from './policy.ts'
import type { Records } from './records.ts'
import type { Resolution, Resolve } from './resolver.ts'

export interface NamesOptions {
  slot: string
  rules(): Rules | undefined
  records: Records
  /** Resolves once it is on its way */
  send(message: FromEgress): Promise<void>
}

/** The names of one sandbox, and the made-up addresses that stand for them there. */
export interface Names {
  resolve: Resolve
  nameOf(address: string): string | undefined
  /** Takes up what an earlier process has given, and gives each exact name its address before wildcards use them up */
  prepare(exact: string[], earlier: Pin[]): void
}

export function createNames({ slot, rules, records, send }: NamesOptions): Names {
  const pins = createPins()
  /** Pins that the worker knows of, and would hand over again */
  const told = new Set<string>()
  const refuse = (reason: EgressReason, asked: string): Resolution => {
    records.refuseOnce(reason, 53, { host: asked })
    return 'no-such-name'
  }
  return {
    resolve: async (asked) => {
      const room = records.room()
      if (room) await room
      const name = plainName(asked)
      if (name === undefined || !rules()?.hostOf(name)) return refuse('name-not-allowed', asked)
      const known = pins.addressOf(name)
      if (known !== undefined && told.has(name)) return { address: known }
      if (known === undefined && pins.full()) return refuse('too-many-names', asked)
      const address = known ?? pins.pin(name)
      told.add(name)
      await send({ type: 'pinned', slot, name, address })
      return { address }
    },
    nameOf: pins.nameOf,
    prepare: (exact, earlier) => {
      pins.restore(earlier)
      for (const pin of earlier) told.add(pin.name)
      for (const name of exact) if (pins.addressOf(name) === undefined) pins.pin(name)
    },
  }
}
