// What the host has asked for and is not yet finished, and the loop that moves its bytes.
#include "agent.h"
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

struct request requests[MAX_REQUESTS];

void fd_close(int *fd)
{
  if (*fd >= 0) close(*fd);
  *fd = -1;
}

struct request *request_find(uint32_t id)
{
  for (struct request *r = requests; r < requests + MAX_REQUESTS; r++)
    if (r->kind != FREE && r->id == id) return r;
  return NULL;
}

static struct request *request_open(uint32_t id, enum kind kind)
{
  if (request_find(id)) die("protocol: a request id is in use");
  for (struct request *r = requests; r < requests + MAX_REQUESTS; r++) {
    if (r->kind != FREE) continue;
    *r = (struct request){.kind = kind, .id = id, .in = -1, .window = WINDOW, .dir = -1,
      .out = {{.fd = -1, .credit = WINDOW}, {.fd = -1, .credit = WINDOW}}};
    return r;
  }
  answer_error(id, BUSY, "too many requests are open");
  return NULL;
}

void request_free(struct request *r)
{
  if (r->kind == PUTTING && r->temp[0]) unlinkat(r->dir, r->temp, 0);
  fd_close(&r->in);
  fd_close(&r->dir);
  fd_close(&r->out[0].fd);
  fd_close(&r->out[1].fd);
  free(r->held);
  r->held = NULL;
  r->kind = FREE;
}

void request_fail(struct request *r, int code, const char *text)
{
  answer_error(r->id, code, text);
  request_free(r);
}

bool requests_running(void)
{
  for (struct request *r = requests; r < requests + MAX_REQUESTS; r++)
    if (r->kind == EXECUTING) return true;
  return false;
}

void outlet_open(struct outlet *out, int fd, uint64_t left)
{
  out->fd = fd;
  out->left = left;
}

// Answers the end of a request once all its streams have ended.
void request_check(struct request *r)
{
  if (r->out[0].fd >= 0 || r->out[1].fd >= 0) return;
  if (r->kind == EXECUTING && r->exited) {
    bool killed = WIFSIGNALED(r->status);
    uint8_t payload[2] = {killed, killed ? WTERMSIG(r->status) : WEXITSTATUS(r->status)};
    answer(EXIT, r->id, payload, sizeof payload);
  } else if (r->kind == GETTING || (r->kind == CONNECTED && r->in < 0)) {
    answer(DONE, r->id, NULL, 0);
  } else {
    return;
  }
  request_free(r);
}

static void outlet_end(struct request *r, int s)
{
  uint8_t which = s + 1;
  if (r->kind == GETTING && r->out[s].left) return request_fail(r, IO, "the file shrank while it was read");
  fd_close(&r->out[s].fd);
  answer(END, r->id, &which, 1);
  request_check(r);
}

static void outlet_pump(struct request *r, int s)
{
  struct outlet *out = &r->out[s];
  size_t want = CHUNK;
  if (want > out->credit) want = out->credit;
  if (want > out->left) want = out->left;
  if (!out->left) return outlet_end(r, s);
  if (!want || !out_fits(want + 1)) return;
  uint8_t *at = out_room(want + 1);
  ssize_t n = read(out->fd, at + 1, want);
  if (n > 0) {
    *at = s + 1;
    out_add(DATA, r->id, n + 1);
    out->credit -= n;
    out->left -= n;
    if (!out->left) outlet_end(r, s);
  } else if (n == 0 || (errno != EAGAIN && errno != EINTR) || r->exited) {
    // A terminal without programs reads as EIO, a reset socket as ECONNRESET: for both nothing more will come.
    outlet_end(r, s);
  }
}

static void inlet_close(struct request *r)
{
  r->held_len = 0;
  if (r->kind == CONNECTED) shutdown(r->in, SHUT_WR);
  fd_close(&r->in);
  request_check(r);
}

static void inlet_taken(struct request *r, uint32_t size)
{
  uint8_t payload[5] = {0};
  r->owed += size;
  if (r->owed < WINDOW / 2) return;
  put32(payload + 1, r->owed);
  answer(CREDIT, r->id, payload, sizeof payload);
  r->window += r->owed;
  r->owed = 0;
}

// Writes what it can. A program that does not read its stdin any more loses the rest, as in a pipe.
static size_t inlet_write(struct request *r, const uint8_t *data, size_t size)
{
  if (r->in < 0) return size;
  ssize_t n = size ? write(r->in, data, size) : 0;
  if (n >= 0) return n;
  if (errno == EAGAIN || errno == EINTR) return 0;
  inlet_close(r);
  return size;
}

static void inlet_pump(struct request *r)
{
  uint32_t had = r->held_len;
  size_t n = inlet_write(r, r->held + r->held_at, had);
  if (r->kind == FREE) return;
  r->held_at += n;
  r->held_len = had - n;
  inlet_taken(r, n);
  if (!r->held_len && r->ending && r->in >= 0) inlet_close(r);
}

static void inlet_data(struct request *r, const uint8_t *data, uint32_t size)
{
  if (size > r->window) die("protocol: the host has sent more than its credit");
  r->window -= size;
  if (r->kind == PUTTING) {
    put_data(r, data, size);
    if (r->kind == PUTTING) inlet_taken(r, size);
    return;
  }
  if (r->ending) return;
  size_t n = r->held_len || r->kind == CONNECTING ? 0 : inlet_write(r, data, size);
  if (r->kind == FREE) return;
  inlet_taken(r, n);
  if (n == size) return;
  if (!r->held && !(r->held = malloc(WINDOW))) return request_fail(r, BUSY, "the sandbox is out of memory");
  memmove(r->held, r->held + r->held_at, r->held_len);
  r->held_at = 0;
  memcpy(r->held + r->held_len, data + n, size - n);
  r->held_len += size - n;
}

static void inlet_end(struct request *r)
{
  if (r->ending) return;
  if (r->kind == PUTTING) return put_commit(r);
  // A terminal has no end of its own; its line discipline takes ^D for one.
  if (r->pty) inlet_data(r, (const uint8_t *)"\4", r->window ? 1 : 0);
  if (r->kind == FREE || r->pty) return;
  r->ending = true;
  if (!r->held_len && r->kind != CONNECTING && r->in >= 0) inlet_close(r);
}

static void start(uint8_t type, uint32_t id, struct payload *p)
{
  static const enum kind kinds[] = {[EXEC] = EXECUTING, [PUT] = PUTTING, [GET] = GETTING, [CONNECT] = CONNECTING};
  struct request *r = request_open(id, kinds[type]);
  if (type == EXEC) exec_start(r, p);
  else if (r && type == PUT) put_start(r, p);
  else if (r && type == GET) get_start(r, p);
  else if (r) connect_start(r, p);
}

// A frame about a request that has ended meanwhile is no mistake of the host's: it is passed over.
static void about(struct request *r, uint8_t type, struct payload *p)
{
  switch (type) {
    case DATA:
      if (take(p, 1) != 0) die("protocol: data for a stream that leads out");
      return inlet_data(r, p->at, p->end - p->at);
    case END:
      return inlet_end(r);
    case CREDIT: {
      uint8_t s = take(p, 1);
      uint32_t credit = take(p, 4);
      if (s < 1 || s > 2 || credit > WINDOW - r->out[s - 1].credit) die("protocol: more credit than there is window");
      r->out[s - 1].credit += credit;
      return;
    }
    case SIGNAL:
      return exec_signal(r, take(p, 1));
    case RESIZE: {
      uint16_t rows = take(p, 2);
      return exec_resize(r, rows, take(p, 2));
    }
    default:  // CANCEL
      if (r->kind != EXECUTING) request_fail(r, CANCELLED, "the host has lost interest");
  }
}

void dispatch(uint8_t type, uint32_t id, struct payload *p)
{
  struct request *r;
  switch (type) {
    case HELLO: {
      uint8_t version[4];
      put32(version, VERSION);
      answer(HELLO, id, version, sizeof version);
      if (take(p, 4) != VERSION) {
        out_flush();
        die("protocol: the host speaks another version");
      }
      greeted = true;
      return;
    }
    case EXEC_PART: return exec_part(id, p);
    case EXEC: case PUT: case GET: case CONNECT: return start(type, id, p);
    case TIME: return machine_time(id, p);
    case RESEED: return machine_reseed(id, p);
    case SHUTDOWN: return machine_shutdown(id, p);
    case PING: return answer(DONE, id, NULL, 0);
    case DATA: case END: case CREDIT: case SIGNAL: case RESIZE: case CANCEL:
      if ((r = request_find(id))) about(r, type, p);
      return;
    default: die("protocol: a frame of an unknown type");
  }
}

static bool wants(struct request *r, int s)
{
  if (r->kind == FREE) return false;
  if (s == 0) return r->in >= 0 && (r->kind == CONNECTING || r->held_len);
  struct outlet *out = &r->out[s - 1];
  return out->fd >= 0 && r->kind != CONNECTING && (!out->left || (out->credit && out_fits(CHUNK + 1)));
}

static void serve(struct request *r, int s)
{
  if (!wants(r, s)) return;
  if (s > 0) outlet_pump(r, s - 1);
  else if (r->kind == CONNECTING) connect_ready(r);
  else inlet_pump(r);
}

// One round: everybody who is ready moves at most one chunk, and another one begins each time, so nobody starves.
void step(int timeout_ms)
{
  static struct pollfd polled[2 + 3 * MAX_REQUESTS];
  static struct { struct request *r; int s; } whose[2 + 3 * MAX_REQUESTS];
  static unsigned turn;
  int count = 2;
  turn++;
  for (unsigned i = 0; i < MAX_REQUESTS; i++) {
    struct request *r = &requests[(turn + i) % MAX_REQUESTS];
    for (int s = 0; s < 3; s++) {
      if (!wants(r, s)) continue;
      // After the program's end its pipes are emptied at once: whoever still holds them may never close them.
      if (s && (r->exited || !r->out[s - 1].left)) timeout_ms = 0;
      polled[count] = (struct pollfd){s ? r->out[s - 1].fd : r->in, s ? POLLIN : POLLOUT, 0};
      whose[count].r = r;
      whose[count++].s = s;
    }
  }
  polled[0] = (struct pollfd){stream, (in_open() ? POLLIN : 0) | (out_pending() ? POLLOUT : 0), 0};
  polled[1] = (struct pollfd){children, POLLIN, 0};
  if (poll(polled, count, timeout_ms) < 0) return;
  for (int i = 2; i < count; i++)
    if (polled[i].revents || whose[i].r->exited || !timeout_ms) serve(whose[i].r, whose[i].s);
  if (polled[1].revents) machine_reap();
  if (polled[0].revents & ~POLLOUT) in_read();
  in_dispatch();
  out_flush();
}
