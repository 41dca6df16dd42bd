// paws-guest --fd N: serves the sandbox whose process 1 it is over descriptor N, until that ends.
#include "agent.h"
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int main(int argc, char **argv)
{
  if (argc != 3 || strcmp(argv[1], "--fd")) {
    static const char usage[] = "usage: paws-guest --fd N\n";
    return write(2, usage, sizeof usage - 1) < 0 ? 3 : 2;
  }
  // It kills whatever it sees when it ends, so it must see nothing but its sandbox.
  if (getpid() != 1) {
    static const char refusal[] = "paws-guest: must be process 1 of a pid namespace or machine\n";
    return write(2, refusal, sizeof refusal - 1) < 0 ? 3 : 2;
  }
  machine_open(atoi(argv[2]));
  for (;;) step(machine_tick());
}
