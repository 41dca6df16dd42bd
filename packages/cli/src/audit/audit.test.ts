import { expect, test } from 'vitest'
import { isGood, type PlaceReport } from './audit.ts'
import { writtenOut } from './forms.ts'
import { makePlan, sessionOf } from './plan.ts'
import { openSearch } from './search.ts'
import { failingSetup, imageSetup } from './sow.ts'

const good: PlaceReport = {
  ...{ place: 'files', what: 'files', marker: ['raw'], missing: [], leaks: [], things: 1, bytes: 1 },
}

test('an audit is good when every marker was found and no secret was', () => {
  const verdict = (...places: Partial<PlaceReport>[]) =>
    isGood({ places: places.map((place) => ({ ...good, ...place })), sent: 1, notes: [] })
  expect(verdict({}, {})).toBe(true)
  expect(verdict({}, { leaks: [{ name: 'header', form: 'hex', where: 'there' }] })).toBe(false)
  expect(verdict({}, { missing: ['hex'] })).toBe(false)
  expect(verdict({}, { marker: undefined, missing: ['hex'] })).toBe(true)
})

test('what leaves markers holds none that could be found, and no secret', async () => {
  const { markers, secrets } = makePlan()
  const plan = { suffix: 'x', markers, secrets }
  const search = openSearch({ ...markers, ...secrets })
  const { workload } = sessionOf(plan, 'example.com', undefined)
  for (const text of [workload.script, failingSetup(markers.logs), imageSetup(markers.snapshots)]) {
    expect((await search({ where: 'program', text: true, read: () => [Buffer.from(text)] })).found).toEqual([])
  }
  const shown = { where: 'environment', read: () => [Buffer.from(writtenOut(markers.environment))] }
  expect((await search(shown)).found.map(({ name }) => name)).toContain('environment')
})

test('no two runs use the same values', () => {
  const values = [makePlan(), makePlan()].flatMap(({ markers, secrets }) => Object.values({ ...markers, ...secrets }))
  expect(new Set(values).size).toBe(values.length)
})
