import { setTimeout as sleep } from 'node:timers/promises'
import type { Form } from './forms.ts'
import type { Phase, Place, Subject } from './place.ts'
import { places } from './places.ts'
import { makePlan, type Plan } from './plan.ts'
import { openSearch, type Search } from './search.ts'
import { type SubjectOptions, startSubject } from './subject.ts'

export interface AuditOptions extends SubjectOptions {
  /** Values of one's own to look for, by the names that they are reported by */
  values?: Record<string, string>
  /** Told what is being done */
  onStep?: (text: string) => void
}

export interface Leak {
  /** Which secret */
  name: string
  form: Form
  where: string
}

/** What was found out about one place. */
export interface PlaceReport {
  place: Place
  what: string
  /** Forms of the marker that were found; undefined where none could be planted */
  marker: Form[] | undefined
  missing: Form[]
  leaks: Leak[]
  things: number
  bytes: number
}

export interface Report {
  places: PlaceReport[]
  /** How many requests took the made-up credential out and were answered */
  sent: number
  /** What could not be looked at */
  notes: string[]
}

/** What is done some time after a session has ended is waited for. */
const patienceMs = 20_000

/**
 * Uses made-up secrets on a real installation and looks for them everywhere, while their session runs and after it.
 * That the search sees anything is proven by markers, which are no secrets: they are left in each place in the way that
 * things come to be there, and must be found.
 */
export async function auditSecrets(options: AuditOptions): Promise<Report> {
  const plan = makePlan()
  const say = options.onStep ?? (() => undefined)
  const reports = new Map<Place, PlaceReport>()
  const notes = new Set<string>()
  const search = openSearch(namedValues(plan, options.values ?? {}))
  const subject = await startSubject(plan, options, say)
  const look = async (phase: Phase) => {
    for (const place of Object.keys(places) as Place[]) {
      if (!places[place].when.includes(phase)) continue
      say(`Looking through ${places[place].what}`)
      const note = (text: string) => void notes.add(text)
      const report = await lookUntilFound({ place, subject, search, note, last: isLast(place, phase) })
      reports.set(place, merge(reports.get(place), report))
    }
  }
  try {
    await look('running')
    say('Ending the session')
    await subject.end()
    await look('ended')
    const sent = await subject.sent()
    if (!subject.callbacks) notes.add(noCallbacks)
    if (sent === 0) notes.add(`${options.host} could not be reached: the secrets were used, but no answer came back`)
    return { places: [...reports.values()], sent, notes: [...notes] }
  } finally {
    await subject.close()
  }
}

const noCallbacks =
  'Callbacks were not looked at: this installation delivers none to this machine (PAWS_DELIVERY_ALLOW=127.0.0.0/8 would)'

const markerPrefix = 'marker in '
const markerOf = (place: Place) => `${markerPrefix}${place}`

function namedValues({ markers, secrets }: Plan, own: Record<string, string>): Record<string, string> {
  const marked = (Object.keys(markers) as Place[]).map((place) => [markerOf(place), markers[place]])
  return { ...own, ...secrets, ...Object.fromEntries(marked) }
}

interface Looking {
  place: Place
  subject: Subject
  search: Search
  note: (text: string) => void
  /** The marker is in this place by now, or soon */
  last: boolean
}

const isLast = (place: Place, phase: Phase) => places[place].when.at(-1) === phase

async function lookUntilFound(looking: Looking): Promise<PlaceReport> {
  let report: PlaceReport | undefined
  for (const deadline = Date.now() + patienceMs; ; await sleep(500)) {
    report = merge(report, await lookOnce(looking))
    if (!looking.last || report.missing.length === 0 || report.marker === undefined || Date.now() > deadline) {
      return report
    }
  }
}

async function lookOnce({ place, subject, search, note }: Looking): Promise<PlaceReport> {
  const { what, holds, items } = places[place]
  const marker = new Set<Form>()
  const leaks: Leak[] = []
  let things = 0
  let bytes = 0
  for await (const item of items(subject, note)) {
    const looked = await search(item)
    things++
    bytes += looked.bytes
    for (const { name, form } of looked.found) {
      if (name === markerOf(place)) marker.add(form)
      else if (!name.startsWith(markerPrefix)) leaks.push({ name, form, where: item.where })
    }
  }
  const planted = place !== 'callbacks' || subject.callbacks !== undefined
  return {
    place,
    what,
    marker: planted ? [...marker] : undefined,
    missing: lacking(holds, marker),
    leaks,
    things,
    bytes,
  }
}

const lacking = (holds: readonly Form[], found: Set<Form>) => holds.filter((form) => !found.has(form))

/** Two looks together: what is found at either is found. */
function merge(before: PlaceReport | undefined, now: PlaceReport): PlaceReport {
  if (!before) return now
  const marker = new Set([...(before.marker ?? []), ...(now.marker ?? [])])
  return {
    ...now,
    marker: now.marker && [...marker],
    missing: lacking(places[now.place].holds, marker),
    leaks: [...before.leaks, ...now.leaks],
    things: before.things + now.things,
    bytes: before.bytes + now.bytes,
  }
}

/** Whether all markers were found and no secret was. */
export function isGood({ places }: Report): boolean {
  return places.every(({ leaks, marker, missing }) => leaks.length === 0 && (!marker || missing.length === 0))
}
