// TCP to what listens on the sandbox's own loopback, by IPv4 and then by IPv6.
#define _GNU_SOURCE
#include "agent.h"
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static bool attempt(struct request *r)
{
  struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_port = htons(r->port), .sin_addr = {htonl(INADDR_LOOPBACK)}};
  struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_port = htons(r->port), .sin6_addr = IN6ADDR_LOOPBACK_INIT};
  int on = 1, tries = 3;
  fd_close(&r->in);
  r->in = socket(r->ipv6 ? AF_INET6 : AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (r->in < 0) return false;
  setsockopt(r->in, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  // A full backlog drops the request silently; three more tries take about 15 seconds, the default over two minutes.
  setsockopt(r->in, IPPROTO_TCP, TCP_SYNCNT, &tries, sizeof tries);
  int failed = r->ipv6 ? connect(r->in, (struct sockaddr *)&v6, sizeof v6) : connect(r->in, (struct sockaddr *)&v4, sizeof v4);
  return !failed || errno == EINPROGRESS;
}

static void retry(struct request *r)
{
  if (!r->ipv6) {
    r->ipv6 = true;
    if (attempt(r)) return;
  }
  request_fail(r, REFUSED, "nothing answers on that port");
}

void connect_start(struct request *r, struct payload *p)
{
  r->port = take(p, 2);
  if (!attempt(r)) retry(r);
}

void connect_ready(struct request *r)
{
  int error = 0;
  socklen_t size = sizeof error;
  if (getsockopt(r->in, SOL_SOCKET, SO_ERROR, &error, &size) || error) return retry(r);
  int out = fcntl(r->in, F_DUPFD_CLOEXEC, 3);
  if (out < 0) return request_fail(r, BUSY, strerror(errno));
  outlet_open(&r->out[0], out, UINT64_MAX);
  r->kind = CONNECTED;
  answer(OPENED, r->id, NULL, 0);
  if (r->ending && !r->held_len) {
    shutdown(r->in, SHUT_WR);
    fd_close(&r->in);
  }
}
