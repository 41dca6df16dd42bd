export { type Deliveries, openDeliveries } from './deliveries.ts'
export { vetUrl } from './vet.ts'
