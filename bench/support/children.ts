import { type ChildProcess, type ForkOptions, fork } from 'node:child_process'
import { once } from 'node:events'

/* Programs of a benchmark in processes of their own, called as if they were here. */

type Commands<T> = {
  [K in keyof T]: T[K] extends (...args: infer A) => infer R ? (...args: A) => R | Promise<R> : never
}
export type Child<T> = {
  [K in keyof T]: T[K] extends (...args: infer A) => infer R ? (...args: A) => Promise<R> : never
} & { process: ChildProcess; close(): Promise<void> }

interface Call {
  name: string
  args: unknown[]
}

/** Answers one call after another; ends with its parent. */
export function answerParent<T>(commands: Commands<T>): void {
  process.on('message', async ({ name, args }: Call) => {
    try {
      const command = commands[name as keyof T] as (...args: unknown[]) => unknown
      process.send?.({ value: await command(...args) })
    } catch (error) {
      process.send?.({ error: error instanceof Error ? error.stack : String(error) })
    }
  })
  process.on('disconnect', () => process.exit())
}

/** @param names what it answers */
export function startChild<T>(program: string, names: (keyof T & string)[], options: ForkOptions = {}): Child<T> {
  const child = fork(new URL(program, import.meta.url), [], options)
  const ended = once(child, 'exit').then(() => [{ value: undefined, error: 'it ended' }])
  const call = async (name: string, args: unknown[]) => {
    child.send({ name, args } satisfies Call)
    const [{ value, error }] = await Promise.race([once(child, 'message'), ended])
    if (error) throw new Error(`${program}: ${error}`)
    return value
  }
  const calls = names.map((name) => [name, (...args: unknown[]) => call(name, args)])
  const close = async () => {
    child.disconnect()
    await ended
  }
  return { ...Object.fromEntries(calls), process: child, close } as Child<T>
}
