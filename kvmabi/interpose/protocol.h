/* SPDX-License-Identifier: MIT */
/* What the interposer and its server say to each other; protocol.py is the same for Python.
 *
 * The socket is of type SOCK_SEQPACKET, so a message is whole or it is not there. A connection starts
 * with HELLO, which has no answer; after that every request has one reply, and one at a time is under
 * way. Byte order and sizes are the machine's: both ends are on it.
 */
#ifndef KVMABI_PROTOCOL_H
#define KVMABI_PROTOCOL_H

#include <stdint.h>

#define KVMABI_PROTOCOL_VERSION 2
#define KVMABI_SOCKET_VARIABLE "KVMABI_SOCKET"

/* The message number 4 is kept for handing out a vCPU's register file. */
enum kvmabi_message {
    KVMABI_HELLO = 1, /* request: the version; identity: the cookie of the address space */
    KVMABI_OPEN = 2,  /* open("/dev/kvm") */
    KVMABI_IOCTL = 3, /* request, argument: the ioctl's; identity: st_dev and st_ino of its fd */
    KVMABI_UNDO = 5,  /* there was no room here for the fd that came last: what it stands for shall not be */
};

struct kvmabi_request {
    uint32_t message;
    uint32_t request;
    uint64_t identity[2];
    uint64_t argument;
};

enum kvmabi_flag {
    KVMABI_FD = 1 << 0,      /* the result is the fd that comes along (SCM_RIGHTS) */
    KVMABI_FOREIGN = 1 << 1, /* the fd is none of the server's: ask the kernel */
    KVMABI_WAIT = 1 << 2,    /* wait for a signal, then answer the error */
    KVMABI_SIGMASK = 1 << 3, /* wait with this mask, of KVM_SET_SIGNAL_MASK */
    KVMABI_STORE = 1 << 4,   /* the fd's number goes into the ioctl's argument, at `place`; the result is 0 */
};

struct kvmabi_reply {
    int32_t result;
    int32_t error; /* an errno, or 0 */
    uint32_t flags;
    uint32_t place;
    uint64_t sigmask;
};

_Static_assert(sizeof(struct kvmabi_request) == 32, "no holes in a request");
_Static_assert(sizeof(struct kvmabi_reply) == 24, "no holes in a reply");

#endif
