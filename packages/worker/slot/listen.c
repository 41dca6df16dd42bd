// paws-slot --listen: opens a slot's way out. It enters the network that the descriptors name, listens there, and
// gives the sockets to the worker the way Node's processes give each other sockets.
#define _GNU_SOURCE
#include "slot.h"
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

enum { USER_NAMESPACE = 3, NETWORK_NAMESPACE = 4, BACKLOG = 1024 };

static const struct door { const char *what; int port, type; } doors[] = {
  {"http", 80, SOCK_STREAM}, {"https", 443, SOCK_STREAM}, {"dns-tcp", 53, SOCK_STREAM}, {"dns-udp", 53, SOCK_DGRAM},
};
enum { DOORS = sizeof doors / sizeof *doors };

// Root of the host may go straight in; anybody else must first be root of the namespace that owns the network.
static void enter(void)
{
  if (!setns(NETWORK_NAMESPACE, CLONE_NEWNET)) return;
  if (setns(USER_NAMESPACE, CLONE_NEWUSER)) die("can't enter the slot's user namespace");
  if (setns(NETWORK_NAMESPACE, CLONE_NEWNET)) die("can't enter the slot's network");
}

// One socket takes IPv4 too; on a host without IPv6 that is all there is.
static int open_door(const struct door *door)
{
  int yes = 1, no = 0;
  int fd = socket(AF_INET6, door->type | SOCK_CLOEXEC, 0);
  bool six = fd >= 0;
  if (!six && (errno != EAFNOSUPPORT || (fd = socket(AF_INET, door->type | SOCK_CLOEXEC, 0)) < 0))
    die("can't make the socket for %s", door->what);
  struct sockaddr_in6 any6 = {.sin6_family = AF_INET6, .sin6_port = htons(door->port)};
  struct sockaddr_in any4 = {.sin_family = AF_INET, .sin_port = htons(door->port)};
  if (six && setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &no, sizeof no)) die("can't take IPv4 for %s", door->what);
  // What an earlier listener's connections left doesn't keep this one away. For UDP it would let others in beside it.
  if (door->type == SOCK_STREAM && setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes))
    die("can't take over the port of %s", door->what);
  if (bind(fd, six ? (void *)&any6 : (void *)&any4, six ? sizeof any6 : sizeof any4) ||
      (door->type == SOCK_STREAM && listen(fd, BACKLOG)))
    die("can't listen for %s", door->what);
  return fd;
}

// The message with which Node announces a socket; the worker hears it as {"what": …} with a handle.
static void hand_over(int channel, const struct door *door, int fd)
{
  char text[128];
  int length = snprintf(text, sizeof text, "{\"cmd\":\"NODE_HANDLE\",\"type\":\"%s.Native\",\"msg\":{\"what\":\"%s\"}}\n",
                        door->type == SOCK_STREAM ? "net" : "dgram", door->what);
  union { char bytes[CMSG_SPACE(sizeof fd)]; struct cmsghdr align; } control = {0};
  struct iovec part = {text, length};
  struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1,
                           .msg_control = control.bytes, .msg_controllen = sizeof control.bytes};
  struct cmsghdr *header = CMSG_FIRSTHDR(&message);
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_RIGHTS;
  header->cmsg_len = CMSG_LEN(sizeof fd);
  memcpy(CMSG_DATA(header), &fd, sizeof fd);
  if (sendmsg(channel, &message, MSG_NOSIGNAL) != length) die("can't hand over the socket for %s", door->what);
  close(fd);
}

// Each socket is acknowledged by a line. A process that ended before that could take the last of them with it.
static void await_acknowledgements(int channel)
{
  char text[256];
  for (int lines = 0; lines < DOORS;) {
    ssize_t got = read(channel, text, sizeof text);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) exit(71);
    for (ssize_t i = 0; i < got; i++) lines += text[i] == '\n';
  }
}

int listen_in_slot(void)
{
  const char *number = getenv("NODE_CHANNEL_FD");
  if (!number) errno = 0, die("--listen needs the channel of a Node process");
  int channel = atoi(number), sockets[DOORS];
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  enter();
  for (int i = 0; i < DOORS; i++) sockets[i] = open_door(&doors[i]);
  for (int i = 0; i < DOORS; i++) hand_over(channel, &doors[i], sockets[i]);
  await_acknowledgements(channel);
  return 0;
}
