// The guest agent: process 1 of a sandbox and its only door. PROTOCOL.md describes the stream that it speaks.
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum {
  VERSION = 1,
  CHUNK = 64 * 1024,                 // bytes in one DATA frame
  MAX_LENGTH = CHUNK + 64,           // of a frame, without its length field
  WINDOW = 256 * 1024,               // bytes in flight per stream until credit is given back
  MAX_REQUESTS = 256,                // open at once
  MAX_STRINGS = 8 * 1024 * 1024,     // of one exec: more than Linux takes
};

// Frame types. Those up to PING come from the host, DATA, END and CREDIT go both ways.
enum {
  HELLO = 1, EXEC_PART, EXEC, PUT, GET, CONNECT, DATA, END, CREDIT, SIGNAL, RESIZE, CANCEL, TIME, RESEED, SHUTDOWN,
  PING, OPENED = 32, DONE, EXIT, ERROR,
};

// Codes of an ERROR.
enum { NOT_FOUND = 1, NOT_REGULAR, LINK, TOO_LARGE, IO, REFUSED, UNSUPPORTED, BUSY, CANCELLED };

enum kind { FREE, EXECUTING, PUTTING, GETTING, CONNECTING, CONNECTED };

// Stream 0 leads in (stdin, a put file, a socket); 1 and 2 lead out (stdout, a got file or a socket; stderr).
struct outlet {
  int fd;            // -1 once it has ended
  uint32_t credit;   // bytes that the host still takes
  uint64_t left;     // bytes still to send at most
};

struct request {
  enum kind kind;
  uint32_t id;
  int in;                     // -1 once it is closed; what still comes for it is dropped
  uint32_t window, owed;      // bytes that the host may still send; bytes taken and not yet given back as credit
  uint8_t *held;              // WINDOW bytes, made when `in` would not take everything at once
  uint32_t held_at, held_len;
  bool ending;                // `in` closes once what is held has been written
  struct outlet out[2];
  pid_t pid;
  bool pty, exited;
  int status;
  uint16_t port;
  bool ipv6;
  int dir;                    // of a put: where the file will stand, under which names
  char name[256], temp[32];
  uint32_t mode;
  uint64_t size, done;
};

// What is not yet read of a frame's payload.
struct payload {
  const uint8_t *at, *end;
};

// frame.c
extern int stream;
extern bool greeted;
void die(const char *why) __attribute__((noreturn));
uint64_t take(struct payload *p, int bytes);
void put32(uint8_t *at, uint32_t value);
uint8_t *out_room(size_t payload);
void out_add(uint8_t type, uint32_t id, size_t payload);
bool out_fits(size_t payload);
bool out_pending(void);
void out_flush(void);
void answer(uint8_t type, uint32_t id, const void *payload, size_t size);
void answer_error(uint32_t id, int code, const char *text);
bool in_open(void);
void in_read(void);
void in_dispatch(void);
void frames_reset(void);

// requests.c
extern struct request requests[MAX_REQUESTS];
void dispatch(uint8_t type, uint32_t id, struct payload *p);
struct request *request_find(uint32_t id);
void request_free(struct request *r);
void request_fail(struct request *r, int code, const char *text);
void request_check(struct request *r);
void outlet_open(struct outlet *out, int fd, uint64_t left);
void fd_close(int *fd);
bool requests_running(void);
void step(int timeout_ms);

// exec.c
void exec_part(uint32_t id, struct payload *p);
void exec_start(struct request *r, struct payload *p);
void exec_ended(pid_t pid, int status);
void exec_signal(struct request *r, int number);
void exec_resize(struct request *r, uint16_t rows, uint16_t cols);
void exec_reset(void);

// files.c
void put_start(struct request *r, struct payload *p);
void put_data(struct request *r, const uint8_t *data, size_t size);
void put_commit(struct request *r);
void get_start(struct request *r, struct payload *p);

// machine.c
extern int children;
void machine_open(int fd);
void machine_reap(void);
void machine_time(uint32_t id, struct payload *p);
void machine_reseed(uint32_t id, struct payload *p);
void machine_shutdown(uint32_t id, struct payload *p);
bool machine_closing(void);
int machine_tick(void);

// connect.c
void connect_start(struct request *r, struct payload *p);
void connect_ready(struct request *r);
