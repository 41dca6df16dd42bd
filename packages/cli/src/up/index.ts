export { upCommand } from './command.ts'
