import { beforeAll } from 'vitest'
import type { Box, EgressWorld, TestRules } from '../../support/egress.ts'

/** One sandbox for all tests of a describe block; a function, since it is there only when they run. */
export function inSandbox(world: EgressWorld, rules: TestRules): () => Box {
  let box: Box
  beforeAll(async () => {
    box = await world.start(rules)
  })
  return () => box
}
