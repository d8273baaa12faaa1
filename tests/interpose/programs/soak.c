/* SPDX-License-Identifier: MIT */
/*
 * Uses the server for long, and reports what that does to it: its resident memory in kB and its open descriptors, after
 * a while and at the end.
 *
 *   soak connections N          N processes one after another, each with a vCPU; every fourth is killed with its files open
 *   soak threads N SECONDS      N threads at once, each with a vCPU, which they read and write
 */
#include "vmm.h"

#include <dirent.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <sys/wait.h>
#include <time.h>

enum { EVERY_KILLED = 4, MOST_THREADS = 512 };

static atomic_bool stop;

static long memory_kb(pid_t pid)
{
    char path[64], line[256];
    long kb = -1;
    FILE *status;

    snprintf(path, sizeof(path), "/proc/%d/status", (int)pid);
    status = fopen(path, "r");
    if (!status)
        return -1;
    while (fgets(line, sizeof(line), status))
        if (sscanf(line, "VmRSS: %ld", &kb) == 1)
            break;
    fclose(status);
    return kb;
}

static int descriptors(pid_t pid)
{
    char path[64];
    int count = 0;
    DIR *folder;

    snprintf(path, sizeof(path), "/proc/%d/fd", (int)pid);
    folder = opendir(path);
    if (!folder)
        return -1;
    while (readdir(folder))
        count++;
    closedir(folder);
    return count - 2; /* . and .. */
}

/* "when kB descriptors" of the process that serves this one: its parent. */
static void report(const char *when)
{
    printf("%s %ld %d\n", when, memory_kb(getppid()), descriptors(getppid()));
    fflush(stdout);
}

static void use(int vcpu, uint64_t mark)
{
    uint64_t value = 0;

    CHECK(set_reg(vcpu, REG_X(0), mark) == 0);
    CHECK(get_reg(vcpu, REG_X(0), &value) == 0 && value == mark);
}

static void connect_often(int count)
{
    for (int i = 0; i < count; i++) {
        pid_t child = fork();
        int status;

        CHECK(child >= 0);
        if (!child) {
            struct vmm vmm = make_vmm();

            use(vmm.vcpu, (uint64_t)i);
            if (i % EVERY_KILLED == 0)
                raise(SIGKILL);
            _exit(0);
        }
        CHECK(waitpid(child, &status, 0) == child);
        CHECK(i % EVERY_KILLED == 0 ? WIFSIGNALED(status) : WIFEXITED(status) && WEXITSTATUS(status) == 0);
        if (i == count / 10)
            report("early");
        else if (i == count / 2)
            report("halfway");
    }
}

static void *work(void *argument)
{
    int vcpu = *(int *)argument;
    uint64_t done = 0;

    while (!atomic_load(&stop))
        use(vcpu, ++done);
    *(int *)argument = done > 0;
    return NULL;
}

static void use_at_once(int count, int seconds)
{
    int system = open_system(), vm = ioctl(system, KVM_CREATE_VM, 0UL), vcpus[MOST_THREADS];
    pthread_t threads[MOST_THREADS];

    CHECK(vm >= 0 && count <= MOST_THREADS);
    for (int i = 0; i < count; i++)
        vcpus[i] = add_vcpu(vm, (unsigned long)i);
    for (int i = 0; i < count; i++)
        CHECK(pthread_create(&threads[i], NULL, work, &vcpus[i]) == 0);
    for (int i = 0; i < 10; i++) {
        struct timespec part = {.tv_sec = seconds / 10, .tv_nsec = seconds % 10 * 100000000L};

        nanosleep(&part, NULL);
        if (i == 0)
            report("early");
        else if (i == 4)
            report("halfway");
    }
    atomic_store(&stop, true);
    for (int i = 0; i < count; i++)
        CHECK(pthread_join(threads[i], NULL) == 0 && vcpus[i] == 1);
}

int main(int argc, char **argv)
{
    CHECK(argc > 2);
    if (argc > 3)
        use_at_once(atoi(argv[2]), atoi(argv[3]));
    else
        connect_often(atoi(argv[2]));
    report("end");
    return 0;
}
