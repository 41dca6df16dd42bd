export { appendEvents, type NewEvent, type StoredEvent } from './append.ts'
export { followEvents } from './follow.ts'
export { type Events, notify, openEvents, type Subscription } from './hub.ts'
