// The guest agent: process 1 of a sandbox and its only door. PROTOCOL.md describes the stream that it speaks.
#pragma once
#define _GNU_SOURCE
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
  VERSION = 1,
  CHUNK = 64 * 1024,             // bytes in one DATA frame of ours
  WINDOW = 256 * 1024,           // bytes in flight per stream until credit is given back
  MAX_REQUESTS = 256,            // open at once
  MAX_LENGTH = 8 * 1024 * 1024,  // of a frame from the host, without its length field: Linux takes no larger exec
};
// Frame types. Those up to PING come from the host, those from OPENED on from us; DATA, END and CREDIT go both ways.
enum {
  FREE, HELLO, EXEC, PUT, GET, CONNECT, DATA, END, CREDIT, SIGNAL, RESIZE, CANCEL, TIME, RESEED, SHUTDOWN, PING,
  OPENED = 32, DONE, EXIT, ERROR,
};
// Codes of an ERROR; BY_ERRNO stands for the code and the text that fit errno.
enum { BY_ERRNO, NOT_FOUND, NOT_REGULAR, LINK, TOO_LARGE, IO, REFUSED, UNSUPPORTED, BUSY, CANCELLED };

struct payload { const uint8_t *at, *end; };  // what is not yet read of a frame's
struct request {
  uint8_t kind;                // FREE, EXEC, PUT, GET, CONNECT, and OPENED once that has succeeded
  uint32_t id;
  int in;                      // stream 0: stdin, a put file, a socket; -1 once closed, what still comes is dropped
  uint32_t window, owed;       // bytes that the host may still send; bytes taken and not yet given back as credit
  uint8_t *held;               // what came and is not yet written, in WINDOW bytes
  uint32_t held_len;
  bool ending;                 // `in` closes once what is held has been written
  // Streams 1 (stdout, a got file, a socket) and 2 (stderr): -1 once ended; what the host takes; what it may get at all
  struct { int fd; uint32_t credit; uint64_t left; } out[2];
  pid_t pid;                   // of a program, and how it ended
  int status;
  bool pty, exited, ipv6;
  uint16_t port;
  int dir;                     // where a put file will stand, under its name and until then another
  char name[256], temp[32];
  mode_t mode;
  uint64_t missing;            // bytes of it that have not come
};

extern int stream;
extern struct request requests[MAX_REQUESTS];
void die(const char *why) __attribute__((noreturn));
uint64_t take(struct payload *p, int bytes);
void answer(uint8_t type, uint32_t id, const void *payload, size_t size);
void answer_error(uint32_t id, int code, const char *text);
bool out_fits(size_t payload), out_flush(void), in_open(void);
void in_read(void), in_dispatch(void);
void dispatch(uint8_t type, uint32_t id, struct payload *p);
void request_free(struct request *r), fd_close(int *fd);
bool fail(struct request *r, int code, const char *text);
void step(int timeout_ms);
bool exec_start(struct request *r, struct payload *p), exec_reap(void);
void exec_signal(struct request *r, int number), exec_resize(struct request *r, struct payload *p);
bool put_start(struct request *r, struct payload *p), put_commit(struct request *r);
bool get_start(struct request *r, struct payload *p);
void machine_time(uint32_t id, struct payload *p), machine_reseed(uint32_t id, struct payload *p);
void machine_shutdown(uint32_t id, struct payload *p);
