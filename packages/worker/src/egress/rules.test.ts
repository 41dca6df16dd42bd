import { expect, test } from 'vitest'
import { resolveRules } from './rules.ts'

const nothing = { allowOut: [], credentials: {}, auditLog: false }
const credential = (placeholders: Record<string, string>) => ({ headers: {}, placeholders })
const presetOf = async (name: string) => ({ hosts: [`${name}.test`, 'shared.test'], env: { [`${name}_url`]: name } })

test('presets become hosts, and those alone are the operator’s', async () => {
  const allowOut = ['preset:npm', 'preset:debian', 'npm.example', '*.example.com']
  const { rules, env } = await resolveRules({ ...nothing, allowOut, auditLog: true }, presetOf)
  expect(rules).toEqual({
    allow: ['npm.example', '*.example.com', 'npm.test', 'shared.test', 'debian.test'],
    operators: ['npm.test', 'shared.test', 'debian.test'],
    credentials: {},
    auditLog: true,
  })
  expect(env).toEqual({ npm_url: 'npm', debian_url: 'debian' })
})

test('what stands for a placeholder is made up anew each time, and as long as the value unless that is short', async () => {
  const long = '123456789:AAF0b7e5a6d4c3f9e2b1a0d8c1f0b7e5a6d'
  const rules = { ...nothing, credentials: { 'a.test': credential({ LONG: long, SHORT: 'hunter2!' }) } }
  const first = await resolveRules(rules, presetOf)
  const second = await resolveRules(rules, presetOf)
  expect(first.env.LONG).toMatch(/^[0-9a-f]+$/)
  expect(first.env.LONG).toHaveLength(long.length)
  expect(first.env.SHORT).toMatch(/^paws-[0-9a-f]{24}$/)
  expect(Object.values(second.env)).not.toContain(first.env.LONG)
  expect(first.rules.credentials['a.test']?.placeholders).toEqual([
    { standIn: first.env.LONG, value: long },
    { standIn: first.env.SHORT, value: 'hunter2!' },
  ])
})

test('a variable that is a placeholder for two hosts has one value inside', async () => {
  const credentials = {
    'a.test': credential({ TOKEN: 'of a, secret' }),
    'b.test': credential({ TOKEN: 'of b, secret' }),
  }
  const { rules, env } = await resolveRules({ ...nothing, credentials }, presetOf)
  const standIn = env.TOKEN
  expect(rules.credentials['a.test']?.placeholders).toEqual([{ standIn, value: 'of a, secret' }])
  expect(rules.credentials['b.test']?.placeholders).toEqual([{ standIn, value: 'of b, secret' }])
})

test('a variable may have a name that objects have too', async () => {
  const placeholders = JSON.parse('{"__proto__":"some secret","constructor":"another secret"}')
  const { env } = await resolveRules({ ...nothing, credentials: { 'a.test': credential(placeholders) } }, presetOf)
  expect(Object.entries(env)).toEqual([
    ['__proto__', expect.stringMatching(/^paws-/)],
    ['constructor', expect.stringMatching(/^paws-/)],
  ])
})
