import type { EgressReason } from '@paws/api'

/** Why a request got no answer; what it says is for the one who sent it. */
export class Failure extends Error {
  override name = 'Failure'
  readonly reason: EgressReason
  constructor(reason: EgressReason, message: string, options?: ErrorOptions) {
    super(message, options)
    this.reason = reason
  }
}
