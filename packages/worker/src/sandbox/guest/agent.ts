import { Duplex } from 'node:stream'
import type { Sandbox } from '../driver.ts'
import { execInGuest } from './exec.ts'
import { getFromGuest, putInGuest } from './files.ts'
import { encodeFrame, type Field, frameType, ProtocolBreach } from './frames.ts'
import { type GuestLink, openLink } from './link.ts'
import { GuestRefused, openInlet, openOutlet } from './streams.ts'

export { GuestRefused } from './streams.ts'

/** The guest agent of one sandbox, as its host sees it: all that `Sandbox` promises and that is done inside. */
export interface GuestAgent extends Omit<Sandbox, 'isolation' | 'outlet' | 'stop'> {
  /** Sets the sandbox's clock, in milliseconds since 1970; rejects with GuestRefused where it has none of its own */
  setTime(unixMs: number): Promise<void>
  /** Adds up to 512 bytes of entropy; rejects with GuestRefused where the kernel is shared with the host */
  reseed(entropy: Uint8Array): Promise<void>
  /** SIGTERM to every process inside, SIGKILL after `graceMs`; settles once the agent has ended, never rejects */
  shutdown(options: { graceMs: number }): Promise<void>
  /** Resolves when the agent answers */
  ping(): Promise<void>
}

/**
 * Speaks to a guest agent over `stream`, which it owns from now on. Whatever comes from there is hostile: the first
 * answer that breaks guest/PROTOCOL.md ends the connection, `gone` names the breach, and all that is pending rejects
 * with SandboxLost. Requests are sent in the order of the calls, so an `exec` right after a `put` of at most 256 KiB
 * needs no round trip between them; and a reader that is slow holds back its own stream only.
 */
export function connectGuest(stream: Duplex): GuestAgent {
  const link = openLink(stream)
  return {
    gone: link.gone,
    exec: (command) => execInGuest(link, command),
    put: (path, content, options) => putInGuest(link, path, content, options),
    get: (path, options) => getFromGuest(link, path, options),
    connect: (port) => connect(link, port),
    setTime: (unixMs) => {
      const seconds = Math.floor(unixMs / 1000)
      const nanoseconds = Math.floor((unixMs - seconds * 1000) * 1e6)
      return ask(link, 'setTime', frameType.time, [8, seconds], [4, nanoseconds])
    },
    reseed: async (entropy) => {
      if (entropy.length > 512) throw new RangeError('Entropy is taken in pieces of at most 512 bytes')
      await ask(link, 'reseed', frameType.reseed, entropy)
    },
    ping: () => ask(link, 'ping', frameType.ping),
    shutdown: async ({ graceMs }) => {
      // Whether it says so first or the connection simply ends: it is over either way.
      await ask(link, 'shutdown', frameType.shutdown, [4, graceMs]).catch(() => undefined)
      link.close('it was shut down')
    },
  }
}

function ask(link: GuestLink, name: string, type: number, ...fields: Field[]): Promise<void> {
  return new Promise((resolve, reject) => {
    const id = link.open({
      name,
      done: resolve,
      error: (_, text) => reject(new GuestRefused(`The guest agent refused ${name}: ${text}`)),
      lost: reject,
    })
    link.send(encodeFrame(type, id, ...fields))
  })
}

function connect(link: GuestLink, port: number): Promise<Duplex> {
  return new Promise((resolve, reject) => {
    let opened = false
    const fail = (error: Error) => {
      inlet.finish()
      duplex.destroy(error)
      reject(error)
    }
    const mine = (which: number) => {
      if (which !== 1 || !opened) throw new ProtocolBreach('data of a connection that is not open')
      return outlet
    }
    const id = link.open({
      name: 'connect',
      opened: (payload) => {
        if (opened || payload.length > 0) throw new ProtocolBreach('a port was opened twice or badly')
        opened = true
        resolve(duplex)
      },
      data: (which, bytes) => mine(which).data(bytes),
      end: (which) => mine(which).end(),
      credit: (bytes) => inlet.credit(bytes),
      done: () => {
        if (!outlet.ended) throw new ProtocolBreach('connect was done before the end of its data')
        inlet.finish()
      },
      error: (_, text) => fail(new GuestRefused(`The sandbox did not connect to port ${port}: ${text}`)),
      lost: fail,
    })
    const inlet = openInlet(link, id)
    const outlet = openOutlet(link, id, 1, () => duplex)
    const duplex: Duplex = new Duplex({
      readableHighWaterMark: 1,
      read: outlet.read,
      write: (chunk: Buffer, _, callback) => inlet.write(chunk, callback),
      final: (callback) => {
        inlet.end()
        callback()
      },
      destroy: (error, callback) => {
        outlet.drain()
        // After both ends it closes by itself, and what is still on its way to the port arrives.
        if (link.isOpen(id) && !(outlet.ended && inlet.ended)) link.send(encodeFrame(frameType.cancel, id))
        callback(error)
      },
    })
    // Whoever reads it hears of an error; without a reader it must not end the worker.
    duplex.on('error', () => undefined)
    link.send(encodeFrame(frameType.connect, id, [2, port]))
  })
}
