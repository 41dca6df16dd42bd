// What the host has asked for and is not yet finished, and the loop that moves its bytes.
#include "agent.h"
#include <netinet/in.h>
#include <netinet/tcp.h>

struct request requests[MAX_REQUESTS];

void fd_close(int *fd) {
  if (*fd >= 0) close(*fd);
  *fd = -1;
}

void request_free(struct request *r) {
  if (r->temp[0]) unlinkat(r->dir, r->temp, 0);
  fd_close(&r->in);
  fd_close(&r->dir);
  fd_close(&r->out[0].fd);
  fd_close(&r->out[1].fd);
  free(r->held);
  r->kind = FREE;
}

// Ends a request with an error; false, for those who return whether they could.
bool fail(struct request *r, int code, const char *text) {
  if (code) answer_error(r->id, code, text);
  else answer_error(r->id, errno == ENOENT ? NOT_FOUND : errno == ELOOP ? LINK : IO, strerror(errno));
  request_free(r);
  return false;
}

// Answers the end of a request once all its streams have ended.
static void check(struct request *r) {
  if (r->out[0].fd >= 0 || r->out[1].fd >= 0) return;
  bool killed = WIFSIGNALED(r->status);
  if (r->kind == EXEC && r->exited)
    answer(EXIT, r->id, (uint8_t[]){killed, killed ? WTERMSIG(r->status) : WEXITSTATUS(r->status)}, 2);
  else if (r->kind == GET || (r->kind == OPENED && r->in < 0)) answer(DONE, r->id, NULL, 0);
  else return;
  request_free(r);
}

static void pump_out(struct request *r, int s) {
  static uint8_t data[1 + CHUNK];
  size_t want = r->out[s].credit < CHUNK ? r->out[s].credit : CHUNK;
  if (r->out[s].left < want) want = r->out[s].left;
  ssize_t n = want ? read(r->out[s].fd, data + 1, want) : 0;
  // After a program's end its pipes are emptied and closed: whoever else holds them may never do so.
  if (n < 0 && errno == EAGAIN && !r->exited) return;
  if (n > 0) {
    data[0] = s + 1;
    answer(DATA, r->id, data, n + 1);
    r->out[s].credit -= n;
    r->out[s].left -= n;
    if (r->out[s].left) return;
  }
  // A terminal without programs reads as EIO, a reset socket as ECONNRESET: nothing more will come either.
  fd_close(&r->out[s].fd);
  if (r->kind == GET && r->out[s].left) fail(r, IO, "the file shrank while it was read");
  else answer(END, r->id, (uint8_t[]){s + 1}, 1);
}

// A program that has closed its stdin, or a socket that was reset, loses what comes, as in a pipe.
static void pump_in(struct request *r) {
  ssize_t n = r->in < 0 || !r->held_len ? (ssize_t)r->held_len : write(r->in, r->held, r->held_len);
  if (n < 0 && errno == EAGAIN) return;
  if (n < 0 && r->kind == PUT) return (void)fail(r, BY_ERRNO, NULL);
  if (n < 0) fd_close(&r->in), n = r->held_len;
  r->held_len -= n;
  if (r->held_len) memmove(r->held, r->held + n, r->held_len);
  r->owed += n;
  if (r->owed >= WINDOW / 2) {
    answer(CREDIT, r->id, (uint8_t[]){0, r->owed >> 24, r->owed >> 16, r->owed >> 8, r->owed}, 5);
    r->window += r->owed;
    r->owed = 0;
  }
  if (!r->ending || r->held_len || r->in < 0) return;
  if (r->kind == PUT) return (void)put_commit(r);
  if (r->kind == OPENED) shutdown(r->in, SHUT_WR);
  fd_close(&r->in);
}

static void take_in(struct request *r, struct payload *p) {
  if (take(p, 1) || r->ending) die("protocol: data for a stream that leads out or has ended");
  size_t size = p->end - p->at;
  if (size > r->window) die("protocol: the host has sent more than its credit");
  if (r->kind == PUT && size > r->missing) return (void)fail(r, TOO_LARGE, "more came than was announced");
  r->missing -= size;
  r->window -= size;
  if (!r->held && !(r->held = malloc(WINDOW))) die("out of memory");
  memcpy(r->held + r->held_len, p->at, size);
  r->held_len += size;
}

// Begins to connect to what listens on loopback, by IPv4 and then by IPv6, or asks how far that has come.
static bool connect_try(struct request *r) {
  struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_port = htons(r->port), .sin_addr = {htonl(INADDR_LOOPBACK)}};
  struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_port = htons(r->port), .sin6_addr = IN6ADDR_LOOPBACK_INIT};
  struct sockaddr *to = r->ipv6 ? (struct sockaddr *)&v6 : (struct sockaddr *)&v4;
  if (r->in < 0) {
    r->in = socket(to->sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    setsockopt(r->in, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
    // A full backlog drops requests silently: three more tries take about 15 seconds, the default over two minutes.
    setsockopt(r->in, IPPROTO_TCP, TCP_SYNCNT, &(int){3}, sizeof(int));
  }
  if (connect(r->in, to, r->ipv6 ? sizeof v6 : sizeof v4) && errno != EISCONN) {
    if (errno == EINPROGRESS || errno == EALREADY) return true;
    if (r->ipv6) return fail(r, REFUSED, "nothing answers there");
    fd_close(&r->in);
    r->ipv6 = true;
    return connect_try(r);
  }
  r->out[0].fd = fcntl(r->in, F_DUPFD_CLOEXEC, 3);
  if (r->out[0].fd < 0) return fail(r, BUSY, strerror(errno));
  r->kind = OPENED;
  answer(OPENED, r->id, NULL, 0);
  return true;
}

static void start(uint8_t type, uint32_t id, struct payload *p) {
  struct request *r = requests;
  while (r < requests + MAX_REQUESTS && r->kind != FREE) r++;
  if (r == requests + MAX_REQUESTS) return answer_error(id, BUSY, "too many requests are open");
  *r = (struct request){.kind = type, .id = id, .in = -1, .window = WINDOW, .dir = -1,
    .out = {{-1, WINDOW, UINT64_MAX}, {-1, WINDOW, UINT64_MAX}}};
  if (type == EXEC) exec_start(r, p);
  else if (type == PUT) put_start(r, p);
  else if (type == GET) get_start(r, p);
  else r->port = take(p, 2);
}

void dispatch(uint8_t type, uint32_t id, struct payload *p) {
  struct request *r = requests;
  bool about = type >= DATA && type <= CANCEL;
  while (r < requests + MAX_REQUESTS && (r->kind == FREE || r->id != id)) r++;
  if (!about && r < requests + MAX_REQUESTS) die("protocol: a request id is in use");
  // What concerns a request that has ended meanwhile is no mistake of the host's.
  if (about && r == requests + MAX_REQUESTS) return;
  switch (type) {
    case HELLO:
      if (take(p, 4) != VERSION) die("protocol: the host speaks another version");
      return answer(HELLO, id, (uint8_t[]){0, 0, 0, VERSION}, 4);
    case EXEC: case PUT: case GET: case CONNECT: return start(type, id, p);
    case DATA: return take_in(r, p);
    case END: r->ending = true; if (r->kind == PUT) pump_in(r); return;  // a file is there for the next frame
    case CREDIT: {
      uint32_t s = take(p, 1) - 1, bytes = take(p, 4);
      if (s > 1 || bytes > WINDOW - r->out[s].credit) die("protocol: more credit than there is window");
      r->out[s].credit += bytes;
      return;
    }
    case SIGNAL: return exec_signal(r, take(p, 1));
    case RESIZE: return exec_resize(r, p);
    case CANCEL: if (r->kind != EXEC) fail(r, CANCELLED, "the host has lost interest"); return;
    case TIME: return machine_time(id, p);
    case RESEED: return machine_reseed(id, p);
    case SHUTDOWN: return machine_shutdown(id, p);
    case PING: return answer(DONE, id, NULL, 0);
    default: die("protocol: a frame of an unknown type");
  }
}

static bool wants(struct request *r, int s) {
  if (s == 0) return r->kind && (r->kind == CONNECT || r->held_len || (r->ending && r->in >= 0));
  if (!r->kind || r->out[s - 1].fd < 0) return false;
  return !r->out[s - 1].left || (r->out[s - 1].credit && out_fits(CHUNK + 1));
}

// One round: everybody moves one chunk at most, and another begins each time, so that nobody starves.
void step(int timeout_ms) {
  static struct pollfd polled[1 + 3 * MAX_REQUESTS];
  static unsigned turn;
  int count = 1;
  for (struct request *r = requests; r < requests + MAX_REQUESTS; r++)
    for (int s = 0; s < 3; s++)
      if (wants(r, s)) polled[count++] = (struct pollfd){s ? r->out[s - 1].fd : r->in, s ? POLLIN : POLLOUT, 0};
  polled[0] = (struct pollfd){stream, (in_open() ? POLLIN : 0) | (out_flush() ? 0 : POLLOUT), 0};
  // SIGCHLD comes only here; it is the one that wakes us without a descriptor.
  struct timespec timeout = {0, timeout_ms * 1000000L};
  int ready = ppoll(polled, count, timeout_ms < 0 ? NULL : &timeout, &(sigset_t){0});
  if (ready > 0 && polled[0].revents & ~POLLOUT) in_read();
  in_dispatch();
  exec_reap();
  turn++;
  for (unsigned i = 0; i < MAX_REQUESTS; i++) {
    struct request *r = &requests[(turn + i) % MAX_REQUESTS];
    if (r->kind == CONNECT) connect_try(r);
    else if (wants(r, 0)) pump_in(r);
    for (int s = 1; s < 3; s++)
      if (wants(r, s)) pump_out(r, s - 1);
    if (r->kind) check(r);
  }
  out_flush();
}
