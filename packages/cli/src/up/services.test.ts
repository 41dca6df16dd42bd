import { createServer } from 'node:net'
import { expect, test } from 'vitest'
import { findPort } from './services.ts'

test('a port is found, and one that is taken is refused with a way out', async () => {
  const port = await findPort('127.0.0.1', 0)
  expect(port).toBeGreaterThan(0)
  const server = createServer()
  await new Promise<void>((done) => server.listen(port, '127.0.0.1', done))
  await expect(findPort('127.0.0.1', port)).rejects.toThrow(
    `Port ${port} of 127.0.0.1 is taken by another program. Choose another: PORT=${port + 1} ./paws up`,
  )
  server.close()
})

test('an address that would keep the own worker out is refused by name', async () => {
  await expect(findPort('192.0.2.1', 0)).rejects.toThrow('HOST is "192.0.2.1", where this machine')
})
