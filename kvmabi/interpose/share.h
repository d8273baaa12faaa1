/* SPDX-License-Identifier: MIT */
/* What a vCPU's file holds for the interposer, and the rows of a register map; share.py is the Python counterpart.
 *
 * The file begins with struct kvm_run, which the VMM maps. Behind it are the register file, a header and a ring of
 * events. The server answers SHARE with a descriptor of it, and MAP with a sealed file of rows. How the two sides
 * use them is in docs/explanation/fast-path.md.
 */
#ifndef KVMABI_SHARE_H
#define KVMABI_SHARE_H

#include <stddef.h>
#include <stdint.h>

#include "protocol.h"

/* Places in the vCPU's file, multiples of the largest page size. */
enum {
    KVMABI_REGISTERS_AT = 0x100000,
    KVMABI_HEADER_AT = 0x120000,
    KVMABI_EVENTS_AT = 0x130000,
    KVMABI_EVENTS_BYTES = 0x40000, /* a power of two */
    KVMABI_FILE_BYTES = 0x170000,
};

enum { KVMABI_MOST_REGISTER_BYTES = 256 };

enum kvmabi_wanted {
    KVMABI_NO_EVENTS = 0,
    KVMABI_EVENTS_ONLY = 1, /* with the calls of gets that can be a save */
    KVMABI_ALL_CALLS = 2,   /* with the calls of every access */
};

struct kvmabi_header {
    /* Written by the server. */
    uint64_t map;     /* the number of the register map that is valid; 0: ask the server */
    uint64_t drained; /* the events before this position have been read */
    uint64_t wanted;  /* an enum kvmabi_wanted */
    uint64_t zero[5];
    /* Written by the client. */
    uint64_t written; /* the events before this position are complete; positions only grow */
    uint64_t reg[2];  /* a copy of struct kvm_one_reg */
    uint64_t unused[5];
    uint8_t scratch[KVMABI_MOST_REGISTER_BYTES];
    /* Written by the server: a bit for each 4 bytes of the register file. Where it is set, a set of the value that the
     * register has succeeds and changes nothing, though sets of other values are not plain. */
    uint8_t settled[(KVMABI_HEADER_AT - KVMABI_REGISTERS_AT) / 4 / 8];
};

enum kvmabi_event_kind {
    KVMABI_GOT = 1,   /* `bytes` bytes of data follow */
    KVMABI_SET = 2,   /* the value before and the value after follow, `bytes` bytes each */
    KVMABI_CALLS = 3, /* the thread's name and addresses follow: the calls that later events came from; id: the tid */
};

/* An event begins at a multiple of 8 bytes. It does not wrap: where less than the longest event is left before the end
 * of the ring, it is at the ring's start. */
struct kvmabi_event {
    uint64_t id;
    uint64_t nanoseconds; /* CLOCK_MONOTONIC: the order of all events of all processes */
    uint32_t kind;
    uint32_t bytes;
};

enum { KVMABI_MOST_EVENT_BYTES = sizeof(struct kvmabi_event) + 2 * KVMABI_MOST_REGISTER_BYTES };

_Static_assert(KVMABI_THREAD_NAME_BYTES + 8 * KVMABI_MOST_FRAMES <= 2 * KVMABI_MOST_REGISTER_BYTES, "room for calls");

struct kvmabi_row {
    uint64_t id;
    uint32_t place;     /* in the register file */
    uint16_t get_bytes; /* what a get copies; 0: it is not a plain copy */
    uint16_t set_bytes; /* what a set copies; 0: it is not a plain copy */
};

struct kvmabi_rows {
    uint64_t map; /* its number */
    uint64_t count;
    struct kvmabi_row rows[]; /* by ascending id */
};

_Static_assert(offsetof(struct kvmabi_header, settled) == 128 + KVMABI_MOST_REGISTER_BYTES, "no holes in a header");
_Static_assert(sizeof(struct kvmabi_event) == 24, "no holes in an event");
_Static_assert(sizeof(struct kvmabi_row) == 16 && sizeof(struct kvmabi_rows) == 16, "no holes in a row");

#endif
