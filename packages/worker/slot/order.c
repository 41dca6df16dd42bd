// The conversation with the driver. Its end means that the driver is gone.
#define _GNU_SOURCE
#include "slot.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { MOST = 64 * 1024, STRINGS = 512 };

void say(const char *line)
{
  if (send(CONTROL, line, strlen(line), MSG_NOSIGNAL) < 0 || send(CONTROL, "\n", 1, MSG_NOSIGNAL) < 0) exit(71);
}

void await_go(void)
{
  char byte;
  if (read(CONTROL, &byte, 1) != 1) exit(71);
}

// An order is strings that end in NUL, and an empty one last: image, /etc/hosts, then the program and its arguments.
char **await_order(void)
{
  static char text[MOST];
  static char *strings[STRINGS];
  size_t size = 0;
  while (size < 2 || text[size - 1] || text[size - 2]) {
    ssize_t got = read(CONTROL, text + size, sizeof text - size);
    if (got <= 0) exit(71);
    size += got;
  }
  int count = 0;
  for (char *at = text; *at && count < STRINGS - 1; at += strlen(at) + 1) strings[count++] = at;
  if (count < 3) errno = 0, die("the order is too short");
  return strings;
}
