/* SPDX-License-Identifier: MIT */
/* KVM_GET_ONE_REG and KVM_SET_ONE_REG without the server, where they are only a copy.
 *
 * What the rows of the vCPU's register map do not have as plain, and every copy that comes out short, is left to the
 * server. docs/explanation/fast-path.md says why the answers are those of a kernel.
 */
#ifndef KVMABI_FASTPATH_H
#define KVMABI_FASTPATH_H

#include <linux/kvm.h>

#include "vcpus.h"

/* How far the stack of a thread reaches at most from its upper end: nothing else is mapped there. */
enum { STACK_BYTES = 8 << 20 };

enum { PAGE = 4096 }; /* or a multiple of it */

/* The get from which on gets leave the calls that they came from: fewer are not a save (kvmabi/order/saves.py). */
enum { GETS_OF_A_SAVE = 8 };

/* Whether the memory is surely there: the stack of this thread above the present frame, or the heap of brk(). */
static bool is_surely_mapped(uintptr_t start, size_t size)
{
    uintptr_t end = start + size, frame = (uintptr_t)__builtin_frame_address(0);
    uintptr_t stack_end = main_stack_end != 0 ? main_stack_end : (uintptr_t)pthread_self();

    if (end < start)
        return false;
    if (start >= frame && end <= stack_end)
        return stack_end - frame < STACK_BYTES;
    return start >= heap_start && end <= (uintptr_t)sbrk(0);
}

static off_t offset_in_file(const struct shared_vcpu *vcpu, const void *place)
{
    return KVMABI_REGISTERS_AT + ((const unsigned char *)place - vcpu->file);
}

/* Copy from the program's memory into the vCPU's file: the kernel copies, unless the memory is surely mapped. */
static bool copy_in(const struct shared_vcpu *vcpu, int fd, void *to, uintptr_t from, size_t size)
{
    if (is_surely_mapped(from, size)) {
        memcpy(to, (const void *)from, size);
        return true;
    }
    return syscall(SYS_pwrite64, fd, from, size, offset_in_file(vcpu, to)) == (long)size;
}

/* Copy from the vCPU's file into the program's memory. A copy that fails leaves at most the first byte changed, which
 * an arm64 kernel writes, too: memory is mapped by pages, so what comes after the first page goes first. */
static bool copy_out(const struct shared_vcpu *vcpu, int fd, uintptr_t to, const unsigned char *from, size_t size)
{
    off_t offset = offset_in_file(vcpu, from);
    size_t here = PAGE - to % PAGE;

    if (is_surely_mapped(to, size)) {
        memcpy((void *)to, from, size);
        return true;
    }
    if (here < size) {
        if (syscall(SYS_pread64, fd, to, 1UL, offset) != 1)
            return false;
        if (syscall(SYS_pread64, fd, to + here, size - here, offset + (off_t)here) != (long)(size - here))
            return false;
        size = here;
    }
    return syscall(SYS_pread64, fd, to, size, offset) == (long)size;
}

static struct kvmabi_header *header_of(const struct shared_vcpu *vcpu)
{
    return (struct kvmabi_header *)(vcpu->file + (KVMABI_HEADER_AT - KVMABI_REGISTERS_AT));
}

/* The rows of the map that is valid now, NULL if they have not been fetched. */
static const struct kvmabi_rows *present_rows(struct shared_vcpu *vcpu)
{
    uint64_t map = __atomic_load_n(&header_of(vcpu)->map, __ATOMIC_ACQUIRE);

    if (map == 0)
        return NULL;
    if (vcpu->rows != NULL && vcpu->rows->map == map)
        return vcpu->rows;
    for (size_t i = 0; i < MOST_MAPS; i++) {
        const struct kvmabi_rows *rows = atomic_load_explicit(&files->maps[i], memory_order_acquire);

        if (rows == NULL)
            break;
        if (rows->map == map)
            return vcpu->rows = rows;
    }
    return NULL;
}

static const struct kvmabi_row *find_row(const struct kvmabi_rows *rows, uint64_t id)
{
    size_t first = 0, end = rows->count;

    while (first < end) {
        size_t middle = (first + end) / 2;

        if (rows->rows[middle].id == id)
            return &rows->rows[middle];
        if (rows->rows[middle].id < id)
            first = middle + 1;
        else
            end = middle;
    }
    return NULL;
}

/* The place in the ring for the event at a position, which moves to the ring's start if it must. */
static struct kvmabi_event *event_at(const struct shared_vcpu *vcpu, uint64_t *position)
{
    uint64_t place = *position % KVMABI_EVENTS_BYTES;

    if (place > KVMABI_EVENTS_BYTES - KVMABI_MOST_EVENT_BYTES) {
        *position += KVMABI_EVENTS_BYTES - place;
        place = 0;
    }
    return (struct kvmabi_event *)(vcpu->file + (KVMABI_EVENTS_AT - KVMABI_REGISTERS_AT) + place);
}

/* Complete an event; its `copies` times `bytes` bytes of data are in their place. */
static void end_event(struct kvmabi_event *event, uint64_t *position, uint32_t kind, uint64_t id, size_t bytes)
{
    struct timespec now;
    size_t copies = kind == KVMABI_SET ? 2 : 1;

    clock_gettime(CLOCK_MONOTONIC, &now);
    event->id = id;
    event->nanoseconds = (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
    event->kind = kind;
    event->bytes = (uint32_t)bytes;
    *position += sizeof(*event) + ((copies * bytes + 7) & ~(size_t)7);
}

static void leave_calls(const struct shared_vcpu *vcpu, uint64_t *position) __attribute__((noinline));

static void leave_calls(const struct shared_vcpu *vcpu, uint64_t *position)
{
    struct kvmabi_backtrace trace;
    struct kvmabi_event *event = event_at(vcpu, position);
    const size_t bytes = capture_backtrace(&trace) - offsetof(struct kvmabi_backtrace, name);

    memcpy(event + 1, trace.name, bytes); /* and the addresses behind it */
    end_event(event, position, KVMABI_CALLS, trace.thread, bytes);
}

/* Leave the calls of a get that can be a save's, unless the last get came from the same place. */
static void leave_calls_of_save(struct shared_vcpu *vcpu, uint64_t *position, const uintptr_t caller[2])
{
    bool all = header_of(vcpu)->wanted == KVMABI_ALL_CALLS;

    if (!all && (vcpu->gets < GETS_OF_A_SAVE || (vcpu->caller[0] == caller[0] && vcpu->caller[1] == caller[1])))
        return;
    leave_calls(vcpu, position);
    memcpy(vcpu->caller, caller, sizeof(vcpu->caller));
}

static void publish(struct kvmabi_header *header, uint64_t position)
{
    __atomic_store_n(&header->written, position, __ATOMIC_RELEASE);
    if (!atomic_load_explicit(&session->left_events, memory_order_relaxed))
        atomic_store_explicit(&session->left_events, true, memory_order_relaxed);
}

static bool get_plainly(struct shared_vcpu *vcpu, int fd, const struct kvmabi_row *row, const uintptr_t caller[2])
{
    struct kvmabi_header *header = header_of(vcpu);
    const unsigned char *value = vcpu->file + row->place;
    uint64_t position = header->written;
    struct kvmabi_event *event;

    if (header->wanted == KVMABI_NO_EVENTS)
        return copy_out(vcpu, fd, header->reg[1], value, row->get_bytes);
    vcpu->gets++;
    leave_calls_of_save(vcpu, &position, caller);
    event = event_at(vcpu, &position);
    memcpy(event + 1, value, row->get_bytes);
    if (!copy_out(vcpu, fd, header->reg[1], value, row->get_bytes) || vcpu->overtaken)
        return false;
    end_event(event, &position, KVMABI_GOT, row->id, row->get_bytes);
    publish(header, position);
    return true;
}

static bool is_settled(const struct kvmabi_header *header, uint32_t place)
{
    return (header->settled[place / 32] >> (place / 4 % 8) & 1) != 0;
}

/* A set of vcpu->bytes bytes; `settles`: only of the value that the register has. */
static bool set_plainly(struct shared_vcpu *vcpu, int fd, const struct kvmabi_row *row, bool settles)
{
    struct kvmabi_header *header = header_of(vcpu);
    const size_t bytes = vcpu->bytes;
    unsigned char *value = vcpu->file + row->place;
    uint64_t position = header->written;
    struct kvmabi_event *event = NULL;
    unsigned char *taken = header->scratch;

    vcpu->gets = 0;
    memset(vcpu->caller, 0, sizeof(vcpu->caller));
    if (header->wanted != KVMABI_NO_EVENTS) {
        if (header->wanted == KVMABI_ALL_CALLS)
            leave_calls(vcpu, &position);
        event = event_at(vcpu, &position);
        taken = (unsigned char *)(event + 1) + bytes;
    }
    if (!copy_in(vcpu, fd, taken, header->reg[1], bytes) || (settles && memcmp(taken, value, bytes) != 0))
        return false;
    if (event != NULL) {
        memcpy(event + 1, value, bytes);
        end_event(event, &position, KVMABI_SET, row->id, bytes);
        publish(header, position); /* before the store: whoever sees the value finds the event */
    }
    memcpy(value, taken, bytes);
    atomic_signal_fence(memory_order_seq_cst);
    if (vcpu->overtaken)
        memcpy(value, vcpu->after, bytes);
    return !vcpu->overtaken;
}

/* Whether the events of an access fit into the ring, even if each must begin at its start. */
static bool has_room(const struct kvmabi_header *header)
{
    return header->written - header->drained <= KVMABI_EVENTS_BYTES - 4 * KVMABI_MOST_EVENT_BYTES;
}

/* Answer an access with the vCPU's lock held. */
static bool access_plainly(struct shared_vcpu *vcpu, int fd, bool set, uintptr_t argument, const uintptr_t caller[2])
{
    struct kvmabi_header *header = header_of(vcpu);
    const struct kvmabi_rows *rows = present_rows(vcpu);
    const struct kvmabi_row *row;
    bool settles;

    if (rows == NULL)
        return false;
    if (!has_room(header))
        return false; /* the server reads the ring before it answers */
    if (!copy_in(vcpu, fd, header->reg, argument, sizeof(header->reg)))
        return false;
    row = find_row(rows, header->reg[0]);
    if (row == NULL || (!set && row->get_bytes == 0))
        return false;
    if (!set)
        return get_plainly(vcpu, fd, row, caller);
    settles = row->set_bytes == 0;
    if (settles && !is_settled(header, row->place))
        return false;
    vcpu->place = row->place;
    vcpu->bytes = settles ? row->get_bytes : row->set_bytes;
    return set_plainly(vcpu, fd, row, settles);
}

static bool is_one_reg(unsigned long number)
{
    return number == KVM_GET_ONE_REG || number == KVM_SET_ONE_REG;
}

/* KVM_GET_ONE_REG or KVM_SET_ONE_REG. Returns whether it is done, with success. */
static bool fast_one_reg(int fd, unsigned long number, void *argument, const uintptr_t caller[2])
{
    const struct known *known = known_fd(fd);
    struct shared_vcpu *vcpu = known != NULL ? known->vcpu : NULL;
    int saved = errno;
    bool done = false;

    if (vcpu == NULL || !try_lock_vcpu(vcpu))
        return false;
    vcpu->overtaken = false;
    if (known->vcpu == vcpu && vcpu->file != NULL && is_current(vcpu))
        done = access_plainly(vcpu, fd, number == KVM_SET_ONE_REG, (uintptr_t)argument, caller);
    vcpu->bytes = 0;
    unlock_vcpu(vcpu);
    errno = saved;
    return done;
}

/* The server is about to answer a get, which can be the one that makes gets a save. The vCPU's lock is held. */
static void count_slow_get(struct shared_vcpu *vcpu, const uintptr_t caller[2])
{
    struct kvmabi_header *header = header_of(vcpu);
    uint64_t position = header->written;

    vcpu->gets++;
    if (header->wanted == KVMABI_NO_EVENTS || !has_room(header))
        return;
    leave_calls_of_save(vcpu, &position, caller);
    if (position != header->written)
        publish(header, position);
}

/* A handler has done an ioctl on the vCPU while an access of its thread is under way, which is to be done again. */
static void overtake(struct shared_vcpu *vcpu)
{
    if (vcpu->file != NULL)
        memcpy(vcpu->after, vcpu->file + vcpu->place, vcpu->bytes);
    vcpu->overtaken = true;
}

#endif
