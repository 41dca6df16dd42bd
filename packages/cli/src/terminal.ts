import type { PawsClient, WebSocketLike } from '@paws/sdk'
import { WebSocket } from 'ws'
import { usageError } from './errors.ts'

/** Joins this terminal to a login shell in a session until that ends; answers its exit code. */
export async function attachTerminal(client: PawsClient, sessionId: string): Promise<number> {
  const { stdin, stdout } = process
  if (!stdin.isTTY || !stdout.isTTY)
    throw usageError('-t needs a terminal on both sides. Without one: paws exec SESSION -- COMMAND…')
  const size = () => ({ rows: stdout.rows, cols: stdout.columns })
  const terminal = await client.sessions.terminal(sessionId, {
    ...size(),
    webSocket: (url, headers) => new WebSocket(url, { headers }) as WebSocketLike,
    onOutput: (bytes) => stdout.write(bytes),
  })
  const onInput = (bytes: Buffer<ArrayBuffer>) => terminal.write(bytes)
  const onResize = () => terminal.resize(size())
  stdin.setRawMode(true)
  stdin.on('data', onInput)
  stdout.on('resize', onResize)
  try {
    return (await terminal.exit).exitCode
  } finally {
    // Whatever happened, the user's own terminal must work again.
    stdin.setRawMode(false)
    stdin.off('data', onInput).pause()
    stdout.off('resize', onResize)
    terminal.close()
  }
}
