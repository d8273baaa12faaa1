/* SPDX-License-Identifier: MIT */
/* starts HOW PROGRAM ARGS...: prints what it is and whether /dev/kvm works, then starts PROGRAM with ARGS. */
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

#ifdef __aarch64__
#define MACHINE "arm64"
#else
#define MACHINE "native"
#endif

static int ended(pid_t pid)
{
    int status;

    return waitpid(pid, &status, 0) == pid && WIFEXITED(status) ? WEXITSTATUS(status) : 99;
}

static pid_t exec_in_vfork(char *const *argv)
{
    pid_t pid = vfork();

    if (pid == 0) {
        execv(argv[0], argv);
        _exit(92);
    }
    return pid;
}

int main(int argc, char **argv)
{
    char exe[4096] = "", resolved[4096] = "", *slash;
    int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    const char *how = argc > 2 ? argv[1] : "";
    int error;
    pid_t pid;

    if (readlink("/proc/self/exe", exe, sizeof(exe) - 1) < 0 || realpath("/proc/self/exe", resolved) == NULL)
        return 90;
    slash = strrchr(exe, '/');
    printf("%s %s %s %s %d", MACHINE, argv[0], slash + 1, strcmp(exe, resolved) == 0 ? "same" : resolved,
           ioctl(kvm, KVM_GET_API_VERSION, 0));
    for (int place = 1; place < argc && *how == '\0'; place++)
        printf(" %s", argv[place]);
    puts("");
    fflush(stdout);
    close(kvm);
    if (*how == '\0')
        return 0;
    argv += 2;
    if (strcmp(how, "execv") == 0)
        execv(argv[0], argv);
    if (strcmp(how, "execve") == 0)
        execve(argv[0], argv, environ);
    if (strcmp(how, "execvp") == 0)
        execvp(argv[0], argv);
    if (strcmp(how, "execvpe") == 0)
        execvpe(argv[0], argv, environ);
    if (strcmp(how, "execl") == 0)
        execl(argv[0], "renamed", "a", (char *)NULL);
    if (strcmp(how, "execlp") == 0)
        execlp(argv[0], "renamed", "a", "b", (char *)NULL);
    if (strcmp(how, "execle") == 0)
        execle(argv[0], "renamed", (char *)NULL, environ);
    if (strcmp(how, "self") == 0)
        execv("/proc/self/exe", argv);
    if (strcmp(how, "posix_spawn") == 0) {
        error = posix_spawn(&pid, argv[0], NULL, NULL, argv, environ);
        return error != 0 ? 91 : ended(pid);
    }
    if (strcmp(how, "posix_spawnp") == 0) {
        error = posix_spawnp(&pid, argv[0], NULL, NULL, argv, environ);
        return error != 0 ? 91 : ended(pid);
    }
    if (strcmp(how, "vfork") == 0)
        return ended(exec_in_vfork(argv));
    if (strcmp(how, "system") == 0)
        return WEXITSTATUS(system(argv[0]));
    if (strcmp(how, "empty") == 0)
        execve(argv[0], argv, (char *[]){NULL});
    printf("errno %d\n", errno);
    return 93;
}
