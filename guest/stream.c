// The stream's two buffers. Both are fixed: when one is full, nobody is read from, and nothing grows.
#include "agent.h"

// On top of data, room is kept for the answers that every open request may still cause (EVENTS, under 100 bytes each),
// and for those to the frames that have been read.
enum { EVENTS = 32 * 1024, ANSWERS = 16 * 1024 };

int stream = -1;
static bool greeted;
// Pages of `in` that no large exec has used take no memory.
static uint8_t in[MAX_LENGTH + 4], out[4 * CHUNK + EVENTS + ANSWERS];
static size_t in_len, out_at, out_len;

void die(const char *why) {
  fprintf(stderr, "paws-guest: %s\n", why);
  kill(-1, SIGKILL);  // for process 1: everybody else
  exit(1);
}

uint64_t take(struct payload *p, int bytes) {
  uint64_t value = 0;
  if (p->end - p->at < bytes) die("protocol: a frame is shorter than its type asks for");
  while (bytes--) value = value << 8 | *p->at++;
  return value;
}

void answer(uint8_t type, uint32_t id, const void *payload, size_t size) {
  struct __attribute__((packed)) { uint32_t length; uint8_t type; uint32_t id; } header =
    {htobe32(size + 5), type, htobe32(id)};
  if (out_len + sizeof header + size > sizeof out) die("internal: answers have outgrown their buffer");
  if (out_at) memmove(out, out + out_at, out_len);
  out_at = 0;
  memcpy(out + out_len, &header, sizeof header);
  if (size) memcpy(out + out_len + sizeof header, payload, size);
  out_len += sizeof header + size;
}

void answer_error(uint32_t id, int code, const char *text) {
  char payload[200];
  answer(ERROR, id, payload, snprintf(payload, sizeof payload, "%c%s", code, text));
}

// Whether so much of a program's or a file's data may be added.
bool out_fits(size_t payload) { return out_len + payload + EVENTS + ANSWERS <= sizeof out; }

bool out_flush(void) {  // whether nothing is left
  while (out_len) {
    ssize_t n = write(stream, out + out_at, out_len);
    if (n < 0 && errno == EAGAIN) return false;
    if (n <= 0) die("the host is gone");
    out_at += n;
    out_len -= n;
  }
  out_at = 0;
  return true;
}

// Whether the host is read: not while it leaves too many answers unread.
bool in_open(void) { return in_len < sizeof in && out_len + EVENTS + ANSWERS <= sizeof out; }

void in_read(void) {
  if (in_len == sizeof in) return;
  ssize_t n = read(stream, in + in_len, sizeof in - in_len);
  if (n < 0 && errno == EAGAIN) return;
  if (n <= 0) die("the host is gone");
  in_len += n;
}

void in_dispatch(void) {
  size_t at = 0;
  while (in_len - at >= 4 && out_len + EVENTS + 1024 <= sizeof out) {
    struct payload p = {in + at, in + in_len};
    uint32_t length = take(&p, 4);
    if (length < 5 || length > MAX_LENGTH) die("protocol: a frame's length is out of bounds");
    if (in_len - at < 4 + length) break;
    p.end = p.at + length;
    at += 4 + length;
    uint8_t type = take(&p, 1);
    uint32_t id = take(&p, 4);
    if (!greeted && type != HELLO) die("protocol: the host did not say hello");
    greeted = true;
    dispatch(type, id, &p);
  }
  in_len -= at;
  if (at) memmove(in, in + at, in_len);
}
