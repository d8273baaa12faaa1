/* SPDX-License-Identifier: MIT */
/* Irqfds and ioeventfds of a program, statistics, and a guest_memfd: descriptors are the program's own. */
#include <sys/eventfd.h>

#include "vmm.h"

enum { SPI = 32, MANY = 4096, STATS_BYTES = 216 };

static int irqfd(int vm, int fd, unsigned gsi, unsigned flags)
{
    struct kvm_irqfd irqfd = {.fd = (unsigned)fd, .gsi = gsi, .flags = flags};

    return ioctl(vm, KVM_IRQFD, &irqfd);
}

static int ioeventfd(int vm, int fd, unsigned value, unsigned flags)
{
    struct kvm_ioeventfd match = {.fd = fd, .addr = 0x1000, .len = 4, .datamatch = value};

    match.flags = flags | KVM_IOEVENTFD_FLAG_DATAMATCH;
    return ioctl(vm, KVM_IOEVENTFD, &match);
}

static void use_eventfds(int vm, int other)
{
    int fd = eventfd(0, EFD_CLOEXEC), again;

    CHECK(fd >= 0);
    CHECK(irqfd(vm, fd, SPI, 0) == 0);
    CHECK(FAILS(irqfd(vm, fd, SPI + 1, 0), EBUSY));
    CHECK(FAILS(irqfd(vm, other, SPI, 0), EINVAL));
    CHECK(FAILS(irqfd(vm, -1, SPI, 0), EBADF));
    CHECK(FAILS(irqfd(vm, 1 << 20, SPI, KVM_IRQFD_FLAG_DEASSIGN), EBADF));
    close(fd);
    again = eventfd(0, EFD_CLOEXEC);
    CHECK(again == fd);
    CHECK(irqfd(vm, again, SPI, 0) == 0); /* closing the other took its irqfd away */
    CHECK(irqfd(vm, again, SPI, KVM_IRQFD_FLAG_DEASSIGN) == 0);
    for (unsigned n = 0; n < MANY; n++) {
        CHECK(irqfd(vm, again, n, 0) == 0);
        CHECK(irqfd(vm, again, n, KVM_IRQFD_FLAG_DEASSIGN) == 0);
        CHECK(ioeventfd(vm, again, n, 0) == 0);
    }
    CHECK(FAILS(ioeventfd(vm, again, 7, 0), EEXIST));
    CHECK(ioeventfd(vm, again, 7, KVM_IOEVENTFD_FLAG_DEASSIGN) == 0);
    CHECK(FAILS(ioeventfd(vm, again, 7, KVM_IOEVENTFD_FLAG_DEASSIGN), ENOENT));
    close(again);
}

static void read_statistics(int vm)
{
    struct kvm_stats_header header;
    char id[48], wanted[48];
    int fd = ioctl(vm, KVM_GET_STATS_FD, 0UL);

    CHECK(fd >= 0 && fcntl(fd, F_GETFD) == FD_CLOEXEC);
    CHECK(read(fd, &header, sizeof(header)) == sizeof(header));
    CHECK(header.name_size == sizeof(id) && header.num_desc == 2);
    CHECK(pread(fd, id, sizeof(id), header.id_offset) == sizeof(id));
    snprintf(wanted, sizeof(wanted), "kvm-%d", getpid());
    CHECK(strcmp(id, wanted) == 0);
    CHECK(lseek(fd, 0, SEEK_END) == STATS_BYTES);
    CHECK(FAILS(write(fd, id, 1), EBADF));
    CHECK(FAILS(ioctl(fd, KVM_GET_API_VERSION, 0UL), ENOTTY)); /* a regular file, but not a vCPU's */
    CHECK(FAILS(irqfd(vm, fd, SPI, 0), EINVAL));
    close(fd);
}

static void use_guest_memfd(int vm)
{
    struct kvm_create_guest_memfd create = {.size = 0x10000, .flags = GUEST_MEMFD_FLAG_MMAP};
    int fd = ioctl(vm, KVM_CREATE_GUEST_MEMFD, &create);
    struct kvm_userspace_memory_region2 region = {.flags = KVM_MEM_GUEST_MEMFD, .memory_size = 0x10000};
    char *memory;

    CHECK(fd >= 0);
    memory = mmap(NULL, 0x10000, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    CHECK(memory != MAP_FAILED);
    memory[0xffff] = 1;
    region.guest_memfd = (unsigned)fd;
    CHECK(ioctl(vm, KVM_SET_USER_MEMORY_REGION2, &region) == 0);
    region.slot = 1;
    region.guest_phys_addr = 0x10000;
    CHECK(FAILS(ioctl(vm, KVM_SET_USER_MEMORY_REGION2, &region), EEXIST));
    close(fd);
    CHECK(FAILS(ioctl(vm, KVM_SET_USER_MEMORY_REGION2, &region), EBADF));
}

/* The vCPU's file has the ring behind struct kvm_run; nothing in it is dirty, whatever the registers are. */
static void map_dirty_ring(int system)
{
    enum { RING_BYTES = 1 << 20 };
    struct kvm_enable_cap cap = {.cap = KVM_CAP_DIRTY_LOG_RING_ACQ_REL, .args = {RING_BYTES}};
    int vm = ioctl(system, KVM_CREATE_VM, 0UL), vcpu;
    uint64_t value = 0;
    unsigned char *ring;

    CHECK(vm >= 0 && ioctl(vm, KVM_ENABLE_CAP, &cap) == 0);
    vcpu = add_vcpu(vm, 0);
    CHECK(set_reg(vcpu, REG_X(3), ~UINT64_C(0)) == 0 && get_reg(vcpu, REG_X(3), &value) == 0 && ~value == 0);
    ring = mmap(NULL, RING_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu, KVM_DIRTY_LOG_PAGE_OFFSET * 4096);
    CHECK(ring != MAP_FAILED);
    for (size_t i = 0; i < RING_BYTES; i++)
        CHECK(ring[i] == 0);
    CHECK(ioctl(vm, KVM_RESET_DIRTY_RINGS, 0UL) == 0);
}

int main(void)
{
    int system = open_system(), vm = ioctl(system, KVM_CREATE_VM, 0UL);
    struct kvm_create_device vgic = {.type = KVM_DEV_TYPE_ARM_VGIC_V3};
    struct kvm_device_attr init = {.group = KVM_DEV_ARM_VGIC_GRP_CTRL, .attr = KVM_DEV_ARM_VGIC_CTRL_INIT};
    struct kvm_irq_routing routing = {.nr = 0xffffffff};

    CHECK(vm >= 0);
    CHECK(FAILS(irqfd(vm, -1, SPI, 0), EAGAIN));
    CHECK(ioctl(vm, KVM_CREATE_DEVICE, &vgic) == 0);
    CHECK(ioctl((int)vgic.fd, KVM_SET_DEVICE_ATTR, &init) == 0);
    CHECK(FAILS(ioctl(vm, KVM_SET_GSI_ROUTING, &routing), EINVAL));
    use_eventfds(vm, system);
    read_statistics(vm);
    use_guest_memfd(vm);
    map_dirty_ring(system);
    return 0;
}
