/* SPDX-License-Identifier: MIT */
/* The function that a hook stands in front of: the one of the same name in the next library. */
#ifndef KVMABI_NEXT_H
#define KVMABI_NEXT_H

#include <dlfcn.h>
#include <stdatomic.h>

/* The function with this name in the next library, looked up once. */
static void *next_function(_Atomic(void *) *known, const char *name)
{
    void *found = atomic_load_explicit(known, memory_order_relaxed);

    if (found == NULL) {
        found = dlsym(RTLD_NEXT, name);
        atomic_store_explicit(known, found, memory_order_relaxed);
    }
    return found;
}

/* The f of the next library for NEXT(f), looked up once at each place. */
#define NEXT(name)                                       \
    ({                                                   \
        static _Atomic(void *) known;                    \
        (__typeof__(&name))next_function(&known, #name); \
    })

#endif
