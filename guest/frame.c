// The stream's two buffers. Both are fixed: when one is full, nobody is read from, and nothing grows.
#include "agent.h"
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
  HEADER = 9,
  // Room that is kept for the answers which every open request may still cause (under 100 bytes each),
  EVENTS = 32 * 1024,
  // and on top of it for those to the frames that have been read.
  ANSWERS = 16 * 1024,
};

int stream = -1;
bool greeted;
static uint8_t in[2 * MAX_LENGTH], out[4 * CHUNK + EVENTS + ANSWERS];
static size_t in_len, out_at, out_len;

void die(const char *why)
{
  fprintf(stderr, "paws-guest: %s\n", why);
  // Without its host a sandbox has nobody to answer to. As process 1 this spares only the caller.
  kill(-1, SIGKILL);
  exit(1);
}

uint64_t take(struct payload *p, int bytes)
{
  uint64_t value = 0;
  if (p->end - p->at < bytes) die("protocol: a frame is shorter than its type asks for");
  while (bytes--) value = value << 8 | *p->at++;
  return value;
}

void put32(uint8_t *at, uint32_t value)
{
  for (int i = 0; i < 4; i++) at[i] = value >> (24 - 8 * i);
}

// Where the payload of the next frame goes; out_add then sends it, or part of it.
uint8_t *out_room(size_t payload)
{
  if (out_len + HEADER + payload > sizeof out) die("internal: answers have outgrown their buffer");
  if (out_at + out_len + HEADER + payload > sizeof out) {
    memmove(out, out + out_at, out_len);
    out_at = 0;
  }
  return out + out_at + out_len + HEADER;
}

void out_add(uint8_t type, uint32_t id, size_t payload)
{
  uint8_t *at = out + out_at + out_len;
  put32(at, payload + 5);
  at[4] = type;
  put32(at + 5, id);
  out_len += HEADER + payload;
}

// Whether that much of a program's or file's data may be added.
bool out_fits(size_t payload)
{
  return out_len + HEADER + payload + EVENTS + ANSWERS <= sizeof out;
}

bool out_pending(void)
{
  return out_len > 0;
}

void out_flush(void)
{
  while (out_len) {
    ssize_t n = write(stream, out + out_at, out_len);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && errno == EAGAIN) return;
    if (n <= 0) die("the host is gone");
    out_at += n;
    out_len -= n;
  }
  out_at = 0;
}

void answer(uint8_t type, uint32_t id, const void *payload, size_t size)
{
  uint8_t *at = out_room(size);
  if (size) memcpy(at, payload, size);
  out_add(type, id, size);
}

void answer_error(uint32_t id, int code, const char *text)
{
  uint8_t payload[200] = {code};
  size_t size = strnlen(text, sizeof payload - 1);
  memcpy(payload + 1, text, size);
  answer(ERROR, id, payload, size + 1);
}

// Whether the host may be read: not while it leaves too many answers unread.
bool in_open(void)
{
  return in_len < sizeof in && out_len + EVENTS + ANSWERS <= sizeof out;
}

void in_read(void)
{
  if (in_len == sizeof in) return;
  ssize_t n = read(stream, in + in_len, sizeof in - in_len);
  if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (n <= 0) die("the host is gone");
  in_len += n;
}

void in_dispatch(void)
{
  size_t at = 0;
  while (in_len - at >= 4 && out_len + EVENTS <= sizeof out - 1024) {
    struct payload p = {in + at, in + in_len};
    uint32_t length = take(&p, 4);
    if (length < 5 || length > MAX_LENGTH) die("protocol: a frame's length is out of bounds");
    if (in_len - at < 4 + length) break;
    p.end = p.at + length;
    at += 4 + length;
    uint8_t type = take(&p, 1);
    uint32_t id = take(&p, 4);
    if (!greeted && type != HELLO) die("protocol: the host did not say hello");
    dispatch(type, id, &p);
  }
  in_len -= at;
  memmove(in, in + at, in_len);
}

void frames_reset(void)
{
  in_len = out_at = out_len = 0;
  greeted = false;
}
