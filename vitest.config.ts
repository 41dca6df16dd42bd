import { defineConfig } from 'vitest/config'

const everything = ['packages/*/src/**/*.test.ts', 'test/**/*.test.ts']
/** Compares what all other tests have seen of the API with its contract: it comes last. */
const last = 'test/seen.test.ts'

export default defineConfig({
  test: {
    // Two cores suffice; tests that start processes share them.
    maxWorkers: 2,
    pool: 'forks',
    globalSetup: ['test/support/global-setup.ts'],
    setupFiles: ['test/support/recorder.ts'],
    testTimeout: 30_000,
    hookTimeout: 120_000,
    teardownTimeout: 30_000,
    projects: [
      {
        extends: true,
        test: {
          name: 'tests',
          include: everything,
          exclude: ['**/node_modules/**', '**/fixtures/**', last],
          sequence: { groupOrder: 0 },
        },
      },
      { extends: true, test: { name: 'house', include: [last], sequence: { groupOrder: 1 } } },
    ],
  },
})
