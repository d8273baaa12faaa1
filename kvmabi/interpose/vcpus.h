/* SPDX-License-Identifier: MIT */
/* The vCPUs that the server shares with this address space, and the fds behind which they are known to be.
 *
 * A vCPU has a lock, which every ioctl on it takes, as in the kernel. docs/explanation/fast-path.md has the protocol.
 */
#ifndef KVMABI_VCPUS_H
#define KVMABI_VCPUS_H

#include <stdatomic.h>
#include <time.h>

#include "session.h"
#include "share.h"

enum { ROOM_BYTES = 1 << 16 }; /* a multiple of every page size */
enum { SHARED_BYTES = KVMABI_FILE_BYTES - KVMABI_REGISTERS_AT };

enum { MOST_FDS = 1 << 16, MOST_VCPUS = 4096, MOST_MAPS = 256 };

/* How long another thread's access can take before its lock counts as left behind, by a longjmp from a handler. */
enum { PATIENCE_SECONDS = 1 };

/* Added to the owner of a lock while the server answers: all signals are blocked, and no handler leaves it behind. */
enum { SERVED = 1 };

struct shared_vcpu {
    _Atomic(uintptr_t) owner; /* the thread that has the lock, with SERVED if the server answers it; 0: none */
    uint64_t identity[2];     /* of its file; 0, 0: this was never used */
    uint64_t connection;      /* the session's at which it was shared */
    unsigned char *file;      /* its registers, and what follows in the file; NULL: not mapped */
    const struct kvmabi_rows *rows;
    _Atomic(unsigned) fds;    /* how many of `known` refer to it */
    unsigned gets;            /* since something else was done to the vCPU */
    uint64_t asked;           /* the last register of whose set the server asked where it came from */
    uintptr_t caller[2];      /* the return address and the frame that the last calls were left for */
    /* An access under way, for a handler that interrupts it and changes the vCPU. */
    volatile bool overtaken;
    size_t place, bytes;
    unsigned char after[KVMABI_MOST_REGISTER_BYTES]; /* what the handler left at `place` */
};

/* What is known of this address space's files, in memory that fork does not copy. */
struct known_files {
    struct known {
        uint64_t device;         /* st_dev */
        _Atomic(uint64_t) inode; /* st_ino, written last; 0: unknown */
        _Atomic(struct shared_vcpu *) vcpu;
    } fds[MOST_FDS];
    struct shared_vcpu vcpus[MOST_VCPUS];
    _Atomic(const struct kvmabi_rows *) maps[MOST_MAPS];
    pthread_mutex_t sharing; /* held while vCPUs and maps are added */
};

static struct known_files *files; /* NULL: the fast path is off */
static uintptr_t heap_start;
static __thread uintptr_t main_stack_end; /* 0 in other threads */

static void wipe_files(void)
{
    const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED;

    if (files != NULL && mmap(files, sizeof(*files), PROT_READ | PROT_WRITE, flags, -1, 0) != MAP_FAILED)
        madvise(files, sizeof(*files), MADV_WIPEONFORK);
}

static void fastpath_setup(void)
{
    extern char **environ; /* at the upper end of the main thread's stack, unless it was moved */
    const char *wanted = getenv("KVMABI_FASTPATH");
    void *memory;

    if (session == NULL || (wanted != NULL && strcmp(wanted, "0") == 0))
        return;
    memory = mmap(NULL, sizeof(*files), PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED)
        return;
    files = memory;
    wipe_files();
    pthread_atfork(NULL, NULL, wipe_files);
    heap_start = (uintptr_t)sbrk(0);
    main_stack_end = (uintptr_t)environ;
}

static uintptr_t this_thread(void)
{
    return (uintptr_t)&errno;
}

/* Take the lock of a vCPU, as ioctls take the kernel's. False if this thread has it: it is in a signal handler that
 * interrupted an access. All signals are blocked. */
static bool lock_vcpu(struct shared_vcpu *vcpu)
{
    uintptr_t owner = 0, since = 0;
    struct timespec start = {0}, now;

    while (!atomic_compare_exchange_strong(&vcpu->owner, &owner, this_thread() | SERVED)) {
        if (owner == this_thread())
            return false;
        clock_gettime(CLOCK_MONOTONIC, &now);
        if (owner != since) {
            since = owner;
            start = now;
        }
        if ((owner & SERVED) != 0 || now.tv_sec - start.tv_sec <= PATIENCE_SECONDS)
            owner = 0;
        syscall(SYS_sched_yield);
    }
    return true;
}

static bool try_lock_vcpu(struct shared_vcpu *vcpu)
{
    uintptr_t owner = 0;

    return atomic_compare_exchange_strong(&vcpu->owner, &owner, this_thread());
}

static void unlock_vcpu(struct shared_vcpu *vcpu)
{
    atomic_store_explicit(&vcpu->owner, 0, memory_order_release);
}

static struct known *known_fd(int fd)
{
    return files != NULL && fd >= 0 && fd < MOST_FDS ? &files->fds[fd] : NULL;
}

/* Map a file with room around it: a program may count on a page that it unmapped, next to one that it uses, to be
 * unmapped still. NULL on failure. */
static void *map_apart(size_t size, int protection, int fd, off_t offset)
{
    const size_t whole = size + 2 * (size_t)ROOM_BYTES;
    unsigned char *room = mmap(NULL, whole, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    if (room == MAP_FAILED)
        return NULL;
    if (mmap(room + ROOM_BYTES, size, protection, MAP_SHARED | MAP_FIXED, fd, offset) == MAP_FAILED) {
        munmap(room, whole);
        return NULL;
    }
    return room + ROOM_BYTES;
}

static void unmap_apart(void *memory, size_t size)
{
    munmap((unsigned char *)memory - ROOM_BYTES, size + 2 * (size_t)ROOM_BYTES);
}

static void unmap_vcpu(struct shared_vcpu *vcpu)
{
    if (vcpu->file != NULL)
        unmap_apart(vcpu->file, SHARED_BYTES);
    vcpu->file = NULL;
    vcpu->rows = NULL;
    vcpu->identity[1] = 0;
}

/* The fd no longer refers to what it did, or is about to. */
static void forget_fd(int fd)
{
    struct known *known = known_fd(fd);
    struct shared_vcpu *vcpu;
    uint64_t signals;

    if (known == NULL || known->inode == 0)
        return;
    vcpu = atomic_exchange(&known->vcpu, NULL);
    known->inode = 0;
    if (vcpu == NULL || atomic_fetch_sub(&vcpu->fds, 1) != 1)
        return;
    signals = block_signals();
    if (lock_vcpu(vcpu)) {
        if (vcpu->fds == 0)
            unmap_vcpu(vcpu);
        unlock_vcpu(vcpu);
    }
    restore_signals(signals);
}

static void forget_fds(unsigned first, unsigned last)
{
    for (unsigned fd = first; files != NULL && fd < MOST_FDS && fd <= last; fd++)
        forget_fd((int)fd);
}

/* Whether the server that shares the vCPU is still there, as far as is known. */
static bool is_current(const struct shared_vcpu *vcpu)
{
    return session->connected && vcpu->connection == session->connections;
}

#endif
