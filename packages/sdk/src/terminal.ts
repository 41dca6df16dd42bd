import { type PawsError, unreachable } from './errors.ts'
import type { Transport } from './transport.ts'

/** What of a WebSocket is used: the browser's, Node's and that of the package `ws` all fit. */
export interface WebSocketLike {
  binaryType: string
  readonly readyState: number
  send(data: string | Uint8Array<ArrayBuffer>): void
  close(): void
  addEventListener(type: 'open' | 'close' | 'error', listener: (event: object) => void): void
  addEventListener(type: 'message', listener: (event: { data: unknown }) => void): void
}

export interface TerminalOptions {
  rows?: number
  cols?: number
  /** What the terminal shows, as it comes */
  onOutput(bytes: Uint8Array): void
  /** Opens the connection. The global WebSocket can't send an API key as a header; elsewhere than in a signed-in browser bring one that can. */
  webSocket?: (url: string, headers: Record<string, string>) => WebSocketLike
}

/** A terminal that is open. */
export interface Terminal {
  write(input: Uint8Array<ArrayBuffer> | string): void
  resize(size: { rows: number; cols: number }): void
  /** Settles with the shell's exit code; rejects with PawsError when the connection is lost before that */
  readonly exit: Promise<{ exitCode: number }>
  /** Hangs up */
  close(): void
}

/** @param whyNot finds out why it was refused, since a WebSocket can't say */
export async function openTerminal(
  transport: Transport,
  path: string,
  { rows = 24, cols = 80, onOutput, webSocket = (url) => new WebSocket(url) as WebSocketLike }: TerminalOptions,
  whyNot: () => Promise<PawsError | undefined>,
): Promise<Terminal> {
  const url = `${transport.url.replace(/^http/, 'ws')}${path}?rows=${rows}&cols=${cols}`
  const socket = webSocket(url, transport.authorization)
  socket.binaryType = 'arraybuffer'
  const exit = watchExit(socket, onOutput, transport.url)
  await opened(socket).catch(async (cause) => {
    throw (await whyNot()) ?? unreachable(transport.url, cause)
  })
  return {
    exit,
    write: (input) => socket.send(typeof input === 'string' ? new TextEncoder().encode(input) : input),
    resize: (size) => socket.send(JSON.stringify({ type: 'resize', ...size })),
    close: () => socket.close(),
  }
}

function opened(socket: WebSocketLike): Promise<void> {
  return new Promise((resolve, reject) => {
    socket.addEventListener('open', () => resolve())
    socket.addEventListener('close', () => reject(new Error('the terminal was refused')))
    socket.addEventListener('error', (event) => {
      const { error, message } = event as { error?: unknown; message?: string }
      reject(error ?? new Error(message || 'the terminal was refused'))
    })
  })
}

function watchExit(socket: WebSocketLike, onOutput: TerminalOptions['onOutput'], url: string) {
  const exit = new Promise<{ exitCode: number }>((resolve, reject) => {
    socket.addEventListener('message', ({ data }) => {
      if (typeof data !== 'string') return onOutput(new Uint8Array(data as ArrayBuffer))
      const message = JSON.parse(data) as { type: string; exitCode?: number }
      if (message.type === 'exit') resolve({ exitCode: message.exitCode ?? 0 })
    })
    socket.addEventListener('close', () => reject(unreachable(url, new Error('the terminal was cut off'))))
  })
  // Whoever never asks for the exit is not to be ended by a lost connection; who does still gets the rejection.
  exit.catch(() => undefined)
  return exit
}
