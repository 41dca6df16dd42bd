/** Things that take a while to make, some of them always ready. */
export interface Pool<T> {
  /** One that is ready, or else a new one */
  take(): Promise<T>
  /** Makes what is missing, one after another, in the background */
  refill(): void
  /** Resolves once as many are ready as there should be; rejects with why one could not be made */
  filled(): Promise<void>
  /** Stops making, and returns what was ready */
  drain(): Promise<T[]>
}

export interface PoolOptions<T> {
  size: number
  make(): Promise<T>
  usable(item: T): boolean
  /** Called with what was ready and is no longer usable */
  discard(item: T): void
  failed(error: unknown): void
}

export function openPool<T>({ size, make, usable, discard, failed }: PoolOptions<T>): Pool<T> {
  const ready: T[] = []
  let open = true
  let filling: Promise<void> | undefined
  let failure: unknown

  async function fill() {
    while (open && ready.length < size) ready.push(await make())
  }
  function refill() {
    filling ??= fill()
      .catch((error: unknown) => {
        failure = error
        failed(error)
      })
      .finally(() => {
        filling = undefined
      })
  }
  return {
    refill,
    async take() {
      for (let item = ready.shift(); item; item = ready.shift()) {
        if (usable(item)) return item
        discard(item)
      }
      return make()
    },
    async filled() {
      refill()
      await filling
      if (open && ready.length < size) throw failure
    },
    async drain() {
      open = false
      await filling
      return ready.splice(0)
    },
  }
}
