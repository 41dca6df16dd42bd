/**
 * Which addresses may be dialled for somebody who isn't trusted. The one place where that is decided: callbacks of the
 * control plane and the egress of workers both ask here, on the very address that they then dial.
 */
import ipaddr from 'ipaddr.js'

/** Public by their range, but a cloud's own inside its machines: Azure's wire server. */
const metadata = ['168.63.129.16']

const inRanges = (address: ipaddr.IPv4 | ipaddr.IPv6, ranges: string[]) =>
  ranges.some((range) => {
    const [net, bits] = ipaddr.parseCIDR(range)
    return net.kind() === address.kind() && address.match(net, bits)
  })

/** Whether an address lies in one of these ranges. */
export const isWithin = (address: string, ranges: string[]): boolean => inRanges(ipaddr.parse(address), ranges)

/**
 * Why an address must not be dialled, or undefined if it may: only public unicast will do. What embeds an IPv4 address
 * (mapped, translated, NAT64, 6to4, Teredo, `::/96`) is refused whatever it embeds.
 *
 * @param allow ranges that the operator has opened
 */
export function refusalOf(address: string, allow: string[] = []): string | undefined {
  const parsed = ipaddr.parse(address)
  if (inRanges(parsed, allow)) return undefined
  if (metadata.includes(parsed.toString())) return `${address} is not a public address (metadata)`
  const range = parsed.range()
  // Of IPv6 only 2000::/3 is public at all: that leaves out ::/96, which the library calls unicast.
  const isGlobal = parsed.kind() === 'ipv4' || inRanges(parsed, ['2000::/3'])
  return range === 'unicast' && isGlobal
    ? undefined
    : `${address} is not a public address (${isGlobal ? range : 'reserved'})`
}
