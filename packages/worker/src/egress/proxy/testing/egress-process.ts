import { fork } from 'node:child_process'
import { createSocket } from 'node:dgram'
import { once } from 'node:events'
import { type AddressInfo, createServer } from 'node:net'
import { setTimeout as wait } from 'node:timers/promises'
import type { EgressRecord } from '@paws/api'
import { createAuthority } from '../../authority.ts'
import type { Configure, FromEgress, Pin, SlotRules, ToEgress } from '../../messages.ts'

const main = new URL('../main.ts', import.meta.url)

/** The real egress process, and one sandbox whose dialled addresses are those of the host's loopback. */
export async function startEgressProcess(settings: Partial<Configure>, execArgv: string[] = []) {
  const child = fork(main, {
    serialization: 'advanced',
    stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
    env: {},
    execArgv,
  })
  const said: FromEgress[] = []
  child.on('message', (message: FromEgress) => said.push(message))
  const send = (message: ToEgress, handle?: Parameters<typeof child.send>[1]) =>
    new Promise<void>((resolve) => child.send(message, handle, undefined, () => resolve()))
  const heard = async <T extends FromEgress['type']>(type: T, slot?: string) => {
    for (;;) {
      const found = said.find(
        (message) => message.type === type && (!slot || ('slot' in message && message.slot === slot)),
      )
      if (found) return said.splice(said.indexOf(found), 1)[0] as Extract<FromEgress, { type: T }>
      await once(child, 'message')
    }
  }
  await send({ type: 'configure', resolve: [], nameServers: [], trusted: [], machineTrusted: [], ...settings })
  await heard('ready')

  const openSlot = async (slot: string) => {
    const ports = {} as Record<'http' | 'https' | 'dns-tcp' | 'dns-udp', number>
    for (const what of ['http', 'https', 'dns-tcp'] as const) {
      const server = createServer().listen(0, '::')
      await once(server, 'listening')
      ports[what] = (server.address() as AddressInfo).port
      await send({ type: 'listen', slot, what }, server)
      server.close()
      await heard('listening', slot)
    }
    const socket = createSocket('udp6').bind(0)
    await once(socket, 'listening')
    ports['dns-udp'] = socket.address().port
    await send({ type: 'listen', slot, what: 'dns-udp' }, socket)
    socket.close()
    await heard('listening', slot)
    const authority = await createAuthority()
    let request = 0
    return {
      name: slot,
      ports,
      authority,
      allow: async (rules: Partial<SlotRules>, pins: Pin[] = []) => {
        const whole = { allow: [], operators: [], credentials: {}, auditLog: true, ...rules }
        await send({ type: 'allow', slot, request: request++, rules: whole, authority, pins })
        await heard('allowed', slot)
      },
      /** The next records; acknowledged, so that more can come */
      records: async (count = 1): Promise<EgressRecord[]> => {
        const got: EgressRecord[] = []
        while (got.length < count) {
          const { records } = await heard('records', slot)
          await send({ type: 'recorded', slot, count: records.length })
          got.push(...records)
        }
        return got
      },
      close: async () => {
        await send({ type: 'close', slot })
        await heard('closed', slot)
      },
    }
  }
  return {
    child,
    said,
    send,
    heard,
    openSlot,
    close: async () => {
      if (child.exitCode !== null || child.signalCode !== null) return
      child.disconnect()
      await Promise.race([once(child, 'exit'), wait(5000).then(() => child.kill('SIGKILL'))])
    },
  }
}
