import { expect, test } from 'vitest'
import { readConfig } from './config.ts'
import { createProgram } from './program.ts'

test.each([
  [['sessions', 'shwo', 'x'], `error: unknown command 'paws sessions shwo'`, '"paws sessions --help"'],
  [['sessions', 'list', 'x'], `error: too many arguments for 'paws sessions list'`, '"paws sessions --help"'],
  [['fleet', 'foo'], `error: unknown command 'paws fleet foo'`, '"paws fleet --help"'],
  [['keys', 'create'], `error: missing required argument 'name'`, '"paws keys create --help"'],
  [['frob'], `error: unknown command 'frob'`, '"paws --help"'],
])('what is called wrongly is named, with the help that tells: %j', async (args, message, help) => {
  const { said, ended } = await call(args)
  expect(said).toContain(message)
  expect(said).toContain(help)
  expect(ended).toMatchObject({ exitCode: 1 })
})

async function call(args: string[]) {
  let said = ''
  const program = createProgram(readConfig({}))
  const writeErr = (text: string) => {
    said += text
  }
  const quiet = (command: typeof program): void => {
    command.configureOutput({ writeErr })
    command.commands.forEach(quiet)
  }
  quiet(program)
  const ended = await program.parseAsync(args, { from: 'user' }).catch((error: unknown) => error)
  return { said, ended }
}
