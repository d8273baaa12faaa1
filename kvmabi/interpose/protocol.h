/* SPDX-License-Identifier: MIT */
/* The protocol between the interposer and its server; protocol.py is the Python counterpart.
 *
 * The socket has type SOCK_SEQPACKET, so messages arrive whole or not at all. A connection starts with HELLO,
 * which has no reply. Every other request has one reply, and one request at a time is outstanding. A reply with
 * KVMABI_ORIGIN is followed by a BACKTRACE, whose reply means that the server has read this process's maps. A client
 * that expects to be asked adds the backtrace to the request, which saves the second exchange. Byte order and sizes
 * are native: both ends are on the same machine.
 */
#ifndef KVMABI_PROTOCOL_H
#define KVMABI_PROTOCOL_H

#include <stdint.h>

#define KVMABI_PROTOCOL_VERSION 5
#define KVMABI_SOCKET_VARIABLE "KVMABI_SOCKET"
#define KVMABI_REAL_SOCKET "real" /* the name of the socket of a server that watches the machine's own /dev/kvm */

enum kvmabi_message {
    KVMABI_HELLO = 1, /* request: the version; identity: the cookie of the address space; argument: its address */
    KVMABI_OPEN = 2,  /* open("/dev/kvm") */
    KVMABI_IOCTL = 3, /* request, argument: the ioctl's; identity: st_dev and st_ino of its fd */
    KVMABI_SHARE = 4, /* the fd of a vCPU's file, to be mapped (share.h); identity: the vCPU's */
    KVMABI_UNDO = 5,  /* the last fd could not be received: destroy the object that it stands for */
    KVMABI_BACKTRACE = 6, /* where the last ioctl came from: a struct kvmabi_backtrace, cut after `count` addresses */
    KVMABI_MAP = 7,   /* the fd of the rows of a shared vCPU's register map (share.h); identity: the vCPU's */
    KVMABI_DRAIN = 8, /* read the events that were left */
    KVMABI_BEFORE = 9, /* the kernel is about to do an ioctl (real.h); identity: its fd, and the tid */
    KVMABI_AFTER = 10, /* it is done; identity: its result or the negative errno, and the tid */
    KVMABI_RESUME = 11, /* go on with a KVM_RUN that waits; identity: the vCPU's; argument: whether a signal came */
    KVMABI_EVENTS = 1 << 16, /* added to the others: events were left since the last request */
    KVMABI_CALLED = 1 << 17, /* added to IOCTL: a BACKTRACE follows in the same message */
};

struct kvmabi_request {
    uint32_t message;
    uint32_t request;
    uint64_t identity[2];
    uint64_t argument;
};

enum kvmabi_flag {
    KVMABI_FD = 1 << 0,      /* the result is the attached fd (SCM_RIGHTS) */
    KVMABI_FOREIGN = 1 << 1, /* the fd is not the server's: pass the ioctl to the kernel */
    KVMABI_WAIT = 1 << 2,    /* wait for a signal, then return the error; with a `place`, at most that many milliseconds,
                                and then RESUME */
    KVMABI_SIGMASK = 1 << 3, /* wait with `sigmask`, set by KVM_SET_SIGNAL_MASK */
    KVMABI_STORE = 1 << 4,   /* store the fd in the ioctl's argument at offset `place`; the result is 0 */
    KVMABI_ORIGIN = 1 << 5,  /* the next message is a BACKTRACE */
    KVMABI_LATE_SHIFT = 8,   /* the flags above: how many milliseconds the ioctl takes longer */
};

enum { KVMABI_MOST_FRAMES = 32, KVMABI_THREAD_NAME_BYTES = 16 };

struct kvmabi_backtrace {
    uint32_t message;
    uint32_t thread; /* the tid */
    uint32_t count;
    uint32_t zero;
    char name[KVMABI_THREAD_NAME_BYTES];
    uint64_t addresses[KVMABI_MOST_FRAMES]; /* in the call instructions, the ioctl's caller first */
};

struct kvmabi_reply {
    int32_t result;
    int32_t error; /* an errno, or 0 */
    uint32_t flags;
    uint32_t place;
    uint64_t sigmask;
};

_Static_assert(sizeof(struct kvmabi_request) == 32, "no holes in a request");
_Static_assert(sizeof(struct kvmabi_backtrace) == 32 + 8 * KVMABI_MOST_FRAMES, "no holes in a backtrace");
_Static_assert(sizeof(struct kvmabi_reply) == 24, "no holes in a reply");

#endif
