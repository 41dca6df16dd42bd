// A network with no wire: every address is local, and nobody listens unless the driver opens a listener here.
#define _GNU_SOURCE
#include "slot.h"
#include <errno.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

static const unsigned LOOPBACK = 1;

static void loopback_up(void)
{
  struct ifreq request = {.ifr_name = "lo", .ifr_flags = IFF_UP};
  int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (fd < 0 || ioctl(fd, SIOCSIFFLAGS, &request)) die("can't bring up the loopback device");
  close(fd);
}

// ip route add local 0.0.0.0/0 dev lo
static void all_local(int netlink, int family)
{
  struct {
    struct nlmsghdr header;
    struct rtmsg route;
    struct rtattr device;
    unsigned index;
  } request = {
    .header = {sizeof request, RTM_NEWROUTE, NLM_F_REQUEST | NLM_F_CREATE | NLM_F_EXCL | NLM_F_ACK, 1, 0},
    .route = {.rtm_family = family, .rtm_table = RT_TABLE_LOCAL, .rtm_protocol = RTPROT_BOOT,
              .rtm_scope = RT_SCOPE_HOST, .rtm_type = RTN_LOCAL},
    .device = {RTA_LENGTH(sizeof(unsigned)), RTA_OIF},
    .index = LOOPBACK,
  };
  struct { struct nlmsghdr header; struct nlmsgerr error; char rest[512]; } answer;
  if (send(netlink, &request, sizeof request, 0) < 0) die("can't ask for a route");
  if (recv(netlink, &answer, sizeof answer, 0) < (ssize_t)sizeof answer.header || answer.header.nlmsg_type != NLMSG_ERROR)
    errno = EPROTO, die("no answer about a route");
  errno = -answer.error.error;
  // A host without IPv6 has nothing to route.
  if (errno && !(family == AF_INET6 && (errno == EAFNOSUPPORT || errno == EOPNOTSUPP))) die("can't add a route");
}

void network(void)
{
  loopback_up();
  int netlink = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
  if (netlink < 0) die("can't open netlink");
  all_local(netlink, AF_INET);
  all_local(netlink, AF_INET6);
  close(netlink);
  write_file("/proc/sys/net/ipv4/ip_unprivileged_port_start", "0\n");
  // Otherwise it would answer a ping to any address in the world.
  write_file("/proc/sys/net/ipv4/icmp_echo_ignore_all", "1\n");
  if (!access("/proc/sys/net/ipv6", F_OK)) write_file("/proc/sys/net/ipv6/icmp/echo_ignore_all", "1\n");
}
