import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { type Endpoint, endpoints, errorCodes, errorsOf, type OperationId } from '@paws/api'
import { expect, inject, test } from 'vitest'
import list from './house-exceptions.json' with { type: 'json' }

/*
 * Runs after all other tests: what they saw of the API, operation by operation and status by status, is held against
 * what the contract documents.
 */
const documented = (Object.entries(endpoints) as [OperationId, Endpoint][]).flatMap(([id, endpoint]) => {
  const errors = errorsOf(endpoint).flatMap((code): readonly number[] => errorCodes[code])
  const statuses = new Set([...Object.keys(endpoint.returns).map(Number), ...errors])
  return [...statuses].map((status) => `${id} ${status}`)
})
// A 500 is a bug of ours: it is documented everywhere and must be seen nowhere.
const expected = documented.filter((pair) => !pair.endsWith(' 500'))

const exceptions: readonly string[] = list

const folder = inject('recordings')
const recorded = await Promise.all((await readdir(folder)).map((name) => readFile(join(folder, name), 'utf8')))
const seen = new Set(recorded.flatMap((text) => text.split('\n').filter(Boolean)))

test('every documented answer was seen, but for the exceptions', () => {
  const missing = expected.filter((pair) => !seen.has(pair) && !exceptions.includes(pair))
  expect(missing).toEqual([])
})

test('the list of exceptions only shrinks: it names what is documented and was not seen', () => {
  expect(exceptions.filter((pair) => seen.has(pair) || !expected.includes(pair))).toEqual([])
})

test('nothing was seen that is not documented, and no error of ours', () => {
  expect([...seen].filter((pair) => !expected.includes(pair))).toEqual([])
})
