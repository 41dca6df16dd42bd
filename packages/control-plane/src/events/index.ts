export { appendEvents, eventChannel, type NewEvent, type StoredEvent } from './append.ts'
export { followEvents } from './follow.ts'
export { type Events, notification, notify, openEvents } from './hub.ts'
export { readTails } from './tail.ts'
