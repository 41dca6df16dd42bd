import { textForms } from '../forms.ts'
import { type PlaceKind, textItem } from '../place.ts'

export const callbacks: PlaceKind = {
  what: 'callbacks as they were received',
  when: ['ended'],
  holds: textForms,
  async *items({ callbacks: received }) {
    for (const [index, bytes] of (received ?? []).entries()) yield textItem(`callback ${index + 1}`, bytes)
  },
}
