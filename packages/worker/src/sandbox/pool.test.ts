import { expect, test, vi } from 'vitest'
import { openPool } from './pool.ts'

function numbered(size: number, options: { failAt?: number; dead?: Set<number> } = {}) {
  let made = 0
  const discard = vi.fn()
  const failed = vi.fn()
  const make = async () => {
    made += 1
    if (made === options.failAt) throw new Error(`number ${made} failed`)
    return made
  }
  const usable = (item: number) => !options.dead?.has(item)
  return { pool: openPool({ size, make, usable, discard, failed }), discard, failed, made: () => made }
}

test('what is ready is taken in the order it was made, and replaced', async () => {
  const { pool, made } = numbered(2)
  await pool.filled()
  expect(made()).toBe(2)
  expect(await pool.take()).toBe(1)
  await pool.filled()
  expect(await pool.take()).toBe(2)
  expect(await pool.drain()).toEqual([3])
})

test('an empty pool makes what is taken', async () => {
  const { pool } = numbered(0)
  expect(await pool.take()).toBe(1)
})

test('what has died meanwhile is discarded, not handed out', async () => {
  const { pool, discard } = numbered(2, { dead: new Set([1]) })
  await pool.filled()
  expect(await pool.take()).toBe(2)
  expect(discard.mock.calls).toEqual([[1]])
})

test('a failure ahead of time is told, and tried again when somebody waits for it', async () => {
  const { pool, failed } = numbered(2, { failAt: 2 })
  await expect(pool.filled()).rejects.toThrow('number 2 failed')
  expect(failed.mock.calls).toEqual([[new Error('number 2 failed')]])
  expect([await pool.take(), await pool.take()]).toEqual([1, 3])
})

test('nothing is made once it is drained', async () => {
  const { pool, made } = numbered(3)
  pool.refill()
  const left = await pool.drain()
  const before = made()
  pool.refill()
  await pool.filled()
  expect(left.length).toBe(before)
  expect(made()).toBe(before)
})
