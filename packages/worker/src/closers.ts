/** Whatever is opened adds its own closer; they run in reverse. */
export class Closers {
  readonly #closers: (() => unknown)[] = []

  /** Takes over the closing of something. */
  add<T extends { close: () => unknown }>(opened: T): T {
    this.#closers.push(() => opened.close())
    return opened
  }

  /** Closes all, the last opened first; one that fails keeps no other from closing. */
  async close(): Promise<void> {
    const errors: unknown[] = []
    for (const close of this.#closers.splice(0).reverse()) {
      try {
        await close()
      } catch (error) {
        errors.push(error)
      }
    }
    if (errors.length > 0) throw new AggregateError(errors, 'Not everything could be closed')
  }
}
