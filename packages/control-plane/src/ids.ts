import { v7, validate } from 'uuid'

/** An id like `key_0198c5f2a1b77d3c9e51…`: sortable by creation, unique over all control planes. */
export function newId(prefix: string): string {
  return `${prefix}${v7().replaceAll('-', '')}`
}

/** An id that is a UUID, as sessions have them; sortable by creation too. */
export function newUuid(): string {
  return v7()
}

/** Whether the text can stand in a uuid column; PostgreSQL answers anything else with an error. */
export function isUuid(text: string): boolean {
  return validate(text)
}
