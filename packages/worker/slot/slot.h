// The slot helper: makes the place that a sandbox starts in, waits there, and then becomes the sandbox.
#pragma once
#include <stdbool.h>
#include <sys/types.h>

// Descriptors that the driver brings: its own conversation with the helper, and the guest agent's stream.
enum { CONTROL = 3, AGENT_STREAM = 4, AGENT_BINARY = 5, SECCOMP = 6 };

// main.c
void die(const char *what, ...) __attribute__((noreturn, format(printf, 1, 2)));
void write_file(const char *path, const char *text);

// namespaces.c
void private_mounts(void);
void enter_user_namespace(uid_t owners);
int nested_user_namespace(void);
void bound_capabilities(void);

// disk.c
void copy_disk(const char *from, const char *to);
void mount_disk(const char *image, const char *at, char *device, int size);
void prepare_upper(const char *slot, bool mounted);
void mount_root(const char *image, const char *slot);
void mount_terminals(void);

// network.c
void network(void);

// listen.c
int listen_in_slot(void);

// order.c
char **await_order(void);
void say(const char *line);
void await_go(void);
