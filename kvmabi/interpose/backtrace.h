/* SPDX-License-Identifier: MIT */
/* The calls that led to an ioctl, as addresses; the server finds the names.
 *
 * libgcc's unwinder reads the tables in .eh_frame, which compilers emit for C, C++ and Rust also without debug
 * information and frame pointers. It is what pthread_cancel() and C++ exceptions use. backtrace(3) is the same
 * unwinder, but loads libgcc_s at its first call, which allocates memory: an ioctl in a signal handler can have
 * interrupted malloc(). So libgcc is linked statically; its names are not exported. It allocates nothing and uses
 * no thread-local storage. Finding a table takes no lock with glibc 2.35 and GCC 12 or later (_dl_find_object), before
 * that the lock of dl_iterate_phdr(). Unwinding ends at code without a table, such as JIT-compiled code. It takes
 * about 2 kB of stack.
 */
#ifndef KVMABI_BACKTRACE_H
#define KVMABI_BACKTRACE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <unwind.h>

#include "protocol.h"

/* Where this library begins and ends in memory, defined by the linker. */
extern const char __ehdr_start[] __attribute__((visibility("hidden")));
extern const char _end[] __attribute__((visibility("hidden")));

static bool is_own_code(uintptr_t address)
{
    return address >= (uintptr_t)__ehdr_start && address < (uintptr_t)_end;
}

/* Called by the unwinder for each frame, the innermost first. The interposer's own frames are left out. */
static _Unwind_Reason_Code add_frame(struct _Unwind_Context *context, void *to)
{
    struct kvmabi_backtrace *trace = to;
    int is_next = 0; /* whether the address is that of the next instruction, as after a signal, not a return address */
    uintptr_t address = _Unwind_GetIPInfo(context, &is_next);

    if (address == 0)
        return _URC_END_OF_STACK;
    if (!is_next)
        address--;
    if (trace->count == 0 && is_own_code(address))
        return _URC_NO_REASON;
    trace->addresses[trace->count++] = address;
    return trace->count < KVMABI_MOST_FRAMES ? _URC_NO_REASON : _URC_END_OF_STACK;
}

/* Fill in a backtrace of this thread; returns how many bytes it has. */
static size_t capture_backtrace(struct kvmabi_backtrace *trace)
{
    trace->message = KVMABI_BACKTRACE;
    trace->thread = (uint32_t)syscall(SYS_gettid);
    trace->count = trace->zero = 0;
    syscall(SYS_prctl, PR_GET_NAME, (unsigned long)trace->name, 0UL, 0UL, 0UL);
    _Unwind_Backtrace(add_frame, trace);
    return offsetof(struct kvmabi_backtrace, addresses) + trace->count * sizeof(trace->addresses[0]);
}

#endif
