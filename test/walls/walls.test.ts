import { readdir } from 'node:fs/promises'
import { createRequire } from 'node:module'
import { join } from 'node:path'
import { cruise, type IConfiguration, type ICruiseResult } from 'dependency-cruiser'
import { expect, test } from 'vitest'

const root = join(import.meta.dirname, '../..')
const fixtures = join(import.meta.dirname, 'fixtures')
const config: IConfiguration = createRequire(import.meta.url)(join(root, '.dependency-cruiser.cjs'))
const rules = (config.forbidden ?? []).map((rule) => ({ name: rule.name ?? '', comment: rule.comment }))

test('every wall has a deliberate violation, and every violation a wall', async () => {
  expect((await readdir(fixtures)).sort()).toEqual(rules.map((rule) => rule.name).sort())
})

test('every wall says why it stands', () => {
  expect(rules.filter((rule) => !rule.comment)).toEqual([])
})

test.each(rules)('$name catches its violation, and no other wall does', async ({ name }) => {
  expect(await brokenIn(join(fixtures, name))).toEqual([name])
})

/** Names of the rules that a tree of files breaks, were it the whole project. */
async function brokenIn(folder: string): Promise<string[]> {
  // The project's own exclusion of these fixtures is left out; everything else is as in `npm run check`.
  const { exclude: _, tsConfig: __, ...options } = config.options ?? {}
  const result = await cruise(['.'], {
    ...options,
    baseDir: folder,
    validate: true,
    ruleSet: { forbidden: config.forbidden },
  })
  const { summary } = result.output as ICruiseResult
  return [...new Set(summary.violations.map((violation) => violation.rule.name))]
}
