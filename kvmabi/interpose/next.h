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

/* DECLARE_NEXT(int, f, ...) declares the type and the cached address of NEXT(f), the f of the next library. */
#define DECLARE_NEXT(result, name, ...)         \
    typedef result name##_type(__VA_ARGS__);    \
    static _Atomic(void *) next_##name
#define NEXT(name) ((name##_type *)next_function(&next_##name, #name))

#endif
