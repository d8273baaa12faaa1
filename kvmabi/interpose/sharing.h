/* SPDX-License-Identifier: MIT */
/* What this address space gets from the server for the fast path: the files of vCPUs, and the rows of register maps. */
#ifndef KVMABI_SHARING_H
#define KVMABI_SHARING_H

#include "fastpath.h"

/* Map the file that the server sends for a vCPU. `size` 0: all of it. NULL on failure; `refused`: for good. */
static void *fetch(uint32_t message, const uint64_t identity[2], size_t size, off_t offset, bool *refused)
{
    const struct kvmabi_request request = {.message = message, .identity = {identity[0], identity[1]}};
    const int protection = size != 0 ? PROT_READ | PROT_WRITE : PROT_READ;
    struct kvmabi_reply reply = {0};
    void *memory = NULL;
    struct stat file;
    int fd = -1;

    exchange(&request, &reply, MSG_CMSG_CLOEXEC, &fd);
    *refused = (reply.flags & KVMABI_FOREIGN) != 0;
    if (fd < 0)
        return NULL;
    if (size == 0 && fstat(fd, &file) == 0)
        size = (size_t)file.st_size;
    if (size != 0)
        memory = map_apart(size, protection, fd, offset);
    syscall(SYS_close, fd);
    if (memory != NULL)
        madvise(memory, size, MADV_DONTFORK);
    return memory;
}

/* The vCPU with an identity; or, if there is none, a free place; or NULL. */
static struct shared_vcpu *find_vcpu(const uint64_t identity[2])
{
    struct shared_vcpu *free_place = NULL;

    for (struct shared_vcpu *vcpu = files->vcpus; vcpu < files->vcpus + MOST_VCPUS; vcpu++) {
        if (vcpu->identity[0] == identity[0] && vcpu->identity[1] == identity[1])
            return vcpu;
        if (vcpu->identity[1] == 0 && free_place == NULL)
            free_place = vcpu;
        if (vcpu->identity[0] == 0)
            break;
    }
    return free_place;
}

/* The vCPU behind an fd with this identity, shared before its first ioctl is sent: so every ioctl on it has its lock.
 * NULL: the fd is not a vCPU's of this address space. All signals are blocked. */
static struct shared_vcpu *vcpu_behind(int fd, const uint64_t identity[2])
{
    struct known *known = known_fd(fd);
    struct shared_vcpu *vcpu;
    bool refused = false;

    if (known == NULL || (known->inode != 0 && (known->vcpu == NULL || is_current(known->vcpu))))
        return known != NULL ? known->vcpu : NULL;
    pthread_mutex_lock(&files->sharing);
    vcpu = find_vcpu(identity);
    if (vcpu != NULL && (vcpu->identity[1] == 0 || !is_current(vcpu))) {
        unsigned char *file = fetch(KVMABI_SHARE, identity, SHARED_BYTES, KVMABI_REGISTERS_AT, &refused);
        bool locked = file != NULL && lock_vcpu(vcpu);

        if (locked) {
            unmap_vcpu(vcpu);
            vcpu->file = file;
            vcpu->connection = session->connections;
            memcpy(vcpu->identity, identity, sizeof(vcpu->identity));
            unlock_vcpu(vcpu);
        } else {
            if (file != NULL)
                unmap_apart(file, SHARED_BYTES);
            vcpu = NULL;
        }
    }
    if (known->vcpu == NULL && (vcpu != NULL || refused)) {
        if (vcpu != NULL)
            atomic_fetch_add(&vcpu->fds, 1);
        known->vcpu = vcpu;
        known->device = identity[0];
        known->inode = identity[1];
    }
    pthread_mutex_unlock(&files->sharing);
    return vcpu;
}

/* Fetch the rows of the vCPU's register map if they are missing. All signals are blocked. */
static void fetch_rows(struct shared_vcpu *vcpu, const uint64_t identity[2])
{
    bool missing, refused;

    if (!lock_vcpu(vcpu))
        return;
    missing = vcpu->file != NULL && header_of(vcpu)->map != 0 && present_rows(vcpu) == NULL;
    unlock_vcpu(vcpu);
    if (!missing)
        return;
    pthread_mutex_lock(&files->sharing);
    for (size_t i = 0; i < MOST_MAPS; i++) {
        if (files->maps[i] == NULL) {
            atomic_store(&files->maps[i], fetch(KVMABI_MAP, identity, 0, 0, &refused));
            break;
        }
    }
    pthread_mutex_unlock(&files->sharing);
}

/* Have the server read the events that were left, before this process ends. */
static void hand_over_events(void)
{
    const struct kvmabi_request request = {.message = KVMABI_DRAIN};
    struct kvmabi_reply reply;
    uint64_t signals;
    int none;

    if (session == NULL || !session->left_events || !session->connected)
        return;
    signals = block_signals();
    exchange(&request, &reply, 0, &none);
    restore_signals(signals);
}

#endif
