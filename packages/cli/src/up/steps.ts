import { styleText } from 'node:util'

/** Says on stderr what is being done and how long it took; stdout stays free for the result. */
export interface Steps {
  /** Runs `work` as a named step. `show` replaces the text behind the name while it runs, on a terminal */
  step<T>(name: string, work: (show: (text: string) => void) => Promise<T>): Promise<T>
  /** Whole lines between the steps */
  say(text: string): void
}

const quietMs = 10_000

type Stream = NodeJS.WritableStream & { isTTY?: boolean; columns?: number }

export function createSteps(stream: Stream = process.stderr): Steps {
  const say = (text: string) => void stream.write(`${text}\n`)
  return {
    say,
    async step(name, work) {
      const began = performance.now()
      const clock = stream.isTTY ? startClock(stream, name, began) : undefined
      if (!clock) say(`… ${name}`)
      try {
        const result = await work(clock?.show ?? seldom(say))
        clock?.stop()
        say(`${styleText('green', '✓', { stream })} ${name.padEnd(52)} ${since(began).padStart(9)}`)
        return result
      } catch (error) {
        clock?.stop()
        say(`${styleText('red', '✗', { stream })} ${name.padEnd(52)} ${since(began).padStart(9)}`)
        throw error
      }
    },
  }
}

function startClock(stream: Stream, name: string, began: number) {
  let detail = ''
  const draw = () => {
    const line = `… ${name} ${detail} (${since(began)})`
    stream.write(`\r\x1b[K${line.slice(0, (stream.columns || 80) - 1)}`)
  }
  const timer = setInterval(draw, 200)
  draw()
  return {
    show(text: string) {
      detail = text
      draw()
    },
    stop() {
      clearInterval(timer)
      stream.write('\r\x1b[K')
    },
  }
}

/** Without a terminal: a line now and then, so that a log shows that something goes on. */
function seldom(say: (text: string) => void): (text: string) => void {
  let last = performance.now()
  return (text) => {
    if (performance.now() - last < quietMs) return
    last = performance.now()
    say(`    ${text}`)
  }
}

function since(began: number): string {
  return `${((performance.now() - began) / 1000).toFixed(1)} s`
}

/** A bar of 20 characters and a percentage. `progress` goes from 0 to 1. */
export function bar(progress: number): string {
  const full = Math.round(Math.min(1, Math.max(0, progress)) * 20)
  return `${'█'.repeat(full)}${'░'.repeat(20 - full)} ${String(Math.round(progress * 100)).padStart(3)} %`
}
