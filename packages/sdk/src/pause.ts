/** Wait before the next try, in milliseconds: doubling, at most 5 s, and random so that many clients don't come at once. */
export function backoff(tries: number): number {
  const longest = Math.min(5000, 200 * 2 ** tries)
  return longest / 2 + (Math.random() * longest) / 2
}

/** Waits; rejects with the signal's reason as soon as it aborts. */
export function pause(ms: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    if (signal?.aborted) return reject(signal.reason)
    const stop = () => {
      clearTimeout(timer)
      reject(signal?.reason)
    }
    const timer = setTimeout(() => {
      signal?.removeEventListener('abort', stop)
      resolve()
    }, ms)
    signal?.addEventListener('abort', stop, { once: true })
  })
}
