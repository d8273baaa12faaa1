/* SPDX-License-Identifier: MIT */
/* Starting arm64 programs on another machine: exec and posix_spawn put qemu-user in front of them.
 *
 * `kvmabi run` names qemu-user in the environment, and the dynamic loader and libraries of arm64 programs where the
 * system has none at the usual place (qemuuser.py). It works in both directions: a program of the machine, such as a
 * shell, starts arm64 programs, and an arm64 program starts either. The hooks allocate nothing and take no lock: they
 * run in children of vfork. A raw system call, execveat() and fexecve() are not hooked.
 *
 * A program that the loader was called with sees the loader as /proc/self/exe. readlink() and realpath() return the
 * program itself.
 */
#define _GNU_SOURCE
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "next.h"

enum { SCRIPT_BYTES = 256, MOST_SEGMENTS = 64, MOST_ADDED_WORDS = 10, LIBRARY_PATH_BYTES = 4 * PATH_MAX };

static const char *qemu;      /* NULL: arm64 programs need no help, or there is none */
static const char *loader;    /* NULL: qemu-user finds the program's own */
static const char *libraries; /* the loader's --library-path */
static char own_program[PATH_MAX]; /* the program that the loader was called with; empty if exec loaded it */

__attribute__((constructor)) static void exec_setup(void)
{
    int saved = errno;

    qemu = getenv("KVMABI_QEMU");
    loader = getenv("KVMABI_LOADER");
    libraries = getenv("KVMABI_LIBRARIES");
    if (qemu != NULL && NEXT(realpath)((const char *)getauxval(AT_EXECFN), own_program) != NULL) {
#ifdef __aarch64__
        syscall(SYS_prctl, PR_SET_NAME, strrchr(own_program, '/') + 1); /* not qemu-user's */
#endif
        if (getauxval(AT_BASE) != 0)
            own_program[0] = '\0';
    }
    errno = saved;
}

/* Whether the path is this process's /proc/self/exe. */
static bool is_own_exe(const char *path)
{
    char by_number[32];

    snprintf(by_number, sizeof(by_number), "/proc/%d/exe", (int)getpid());
    return strcmp(path, "/proc/self/exe") == 0 || strcmp(path, by_number) == 0;
}

static bool hides_loader(const char *path)
{
    return own_program[0] != '\0' && path != NULL && is_own_exe(path);
}

static ssize_t own_link(char *to, size_t size)
{
    size_t length = strlen(own_program);

    if (length > size)
        length = size;
    memcpy(to, own_program, length);
    return (ssize_t)length;
}

/* A program that is to be started: the file that the system would load, and for a script what stands before it. */
struct program {
    bool is_arm64, is_dynamic;
    const char *interpreter, *option; /* NULL: not a script; without an option */
    char script_line[SCRIPT_BYTES];
};

static int open_program(const char *path)
{
    struct stat found;
    int fd;

    if (syscall(SYS_faccessat, AT_FDCWD, path, X_OK) != 0)
        return -1;
    fd = (int)syscall(SYS_openat, AT_FDCWD, path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    if (fd >= 0 && (fstat(fd, &found) != 0 || !S_ISREG(found.st_mode))) {
        syscall(SYS_close, fd);
        fd = -1;
    }
    return fd;
}

static void look_at_elf(int fd, struct program *program)
{
    Elf64_Ehdr header;
    Elf64_Phdr segment;

    if (pread(fd, &header, sizeof(header), 0) != sizeof(header) || memcmp(header.e_ident, ELFMAG, SELFMAG) != 0)
        return;
    program->is_arm64 = header.e_ident[EI_CLASS] == ELFCLASS64 && header.e_ident[EI_DATA] == ELFDATA2LSB &&
                        header.e_machine == EM_AARCH64;
    for (int place = 0; program->is_arm64 && place < header.e_phnum && place < MOST_SEGMENTS; place++) {
        off_t offset = (off_t)(header.e_phoff + (Elf64_Off)place * sizeof(segment));

        if (pread(fd, &segment, sizeof(segment), offset) == sizeof(segment) && segment.p_type == PT_INTERP)
            program->is_dynamic = true;
    }
}

/* The interpreter and its option in the first line of a script. */
static bool read_script(int fd, struct program *program)
{
    char *line = program->script_line, *rest;
    ssize_t size = pread(fd, line, SCRIPT_BYTES - 1, 0);

    if (size < 2 || memcmp(line, "#!", 2) != 0)
        return false;
    line[size] = '\0';
    program->interpreter = strtok_r(line + 2, " \t\n", &rest);
    if (program->interpreter == NULL || program->interpreter + strlen(program->interpreter) == line + size)
        return false; /* without an interpreter, or with one that is cut */
    rest[strcspn(rest, "\n")] = '\0';
    program->option = *rest != '\0' ? rest : NULL;
    return true;
}

/* Look at what the system would load for `path`. Returns whether that is an arm64 program. */
static bool look_at(const char *path, struct program *program)
{
    int fd = open_program(path);

    if (fd < 0)
        return false;
    if (read_script(fd, program)) {
        syscall(SYS_close, fd);
        fd = open_program(program->interpreter);
        if (fd < 0)
            return false;
    }
    look_at_elf(fd, program);
    syscall(SYS_close, fd);
    return program->is_arm64;
}

/* The file that is executed for a name without '/', from PATH into `room`. NULL if none is found. */
static const char *search(const char *name, char *room)
{
    const char *path = getenv("PATH");
    int fd;

    for (path = path != NULL ? path : "/bin:/usr/bin"; path != NULL; path = strchr(path, ':')) {
        path += *path == ':';
        snprintf(room, PATH_MAX, "%.*s%s%s", (int)strcspn(path, ":"), path, *path == ':' || *path == '\0' ? "" : "/",
                 name);
        fd = open_program(room);
        if (fd >= 0) {
            syscall(SYS_close, fd);
            return room;
        }
    }
    return NULL;
}

/* The loader's --library-path for a program with this environment: LD_LIBRARY_PATH, which it replaces, comes first. */
static const char *library_path(char *const *envp, char *room)
{
    static const char name[] = "LD_LIBRARY_PATH=";
    int length;

    for (; envp != NULL && *envp != NULL; envp++)
        if (strncmp(*envp, name, sizeof(name) - 1) == 0 && (*envp)[sizeof(name) - 1] != '\0') {
            length = snprintf(room, LIBRARY_PATH_BYTES, "%s:%s", *envp + sizeof(name) - 1, libraries);
            return length < LIBRARY_PATH_BYTES ? room : libraries;
        }
    return libraries;
}

struct spawn {
    pid_t *pid;
    const posix_spawn_file_actions_t *actions;
    const posix_spawnattr_t *attributes;
};

/* Put qemu-user, and the loader where it needs one, in front of an arm64 program; exec it, or spawn it. */
static int start_arm64(const char *path, const struct program *program, char *const *argv, char *const *envp,
                       const struct spawn *spawn)
{
    const char *name = program->interpreter != NULL || argv == NULL || *argv == NULL ? NULL : *argv;
    const char *loaded = program->interpreter != NULL ? program->interpreter : path;
    char room[LIBRARY_PATH_BYTES];
    size_t count = 0, added = 0;

    while (argv != NULL && argv[count] != NULL)
        count++;
    const char *words[count + MOST_ADDED_WORDS];
    words[added++] = qemu;
    if (program->is_dynamic && loader != NULL) {
        words[added++] = loader;
        words[added++] = "--library-path";
        words[added++] = library_path(envp, room);
        if (name != NULL && strcmp(name, path) != 0) { /* loaders before glibc 2.33 have no --argv0 */
            words[added++] = "--argv0";
            words[added++] = name;
        }
    } else {
        words[added++] = "-0";
        words[added++] = name != NULL ? name : loaded;
    }
    words[added++] = loaded;
    if (program->interpreter != NULL) {
        if (program->option != NULL)
            words[added++] = program->option;
        words[added++] = path;
    }
    for (size_t place = 1; place < count; place++)
        words[added++] = argv[place];
    words[added] = NULL;
    if (spawn != NULL)
        return NEXT(posix_spawn)(spawn->pid, qemu, spawn->actions, spawn->attributes, (char *const *)words, envp);
    return NEXT(execve)(qemu, (char *const *)words, envp);
}

/* Start `file` if it is an arm64 program that needs help. Returns whether it is; `result` is then the call's. */
static bool start(const char *file, bool by_path, char *const *argv, char *const *envp, const struct spawn *spawn,
                  int *result)
{
    const char *volatile given = file; /* libc declares it non-null, the kernel does not */
    struct program program = {0};
    char room[PATH_MAX];
    int saved = errno;
    ssize_t length;

    if (qemu == NULL || given == NULL || *given == '\0')
        return false;
    if (by_path && strchr(file, '/') == NULL) {
        file = search(file, room);
    } else if (is_own_exe(file)) {
        length = own_program[0] != '\0' ? own_link(room, PATH_MAX - 1) : NEXT(readlink)(file, room, PATH_MAX - 1);
        room[length > 0 ? length : 0] = '\0';
        file = room;
    }
    if (file == NULL || !look_at(file, &program)) {
        errno = saved;
        return false;
    }
    errno = saved;
    *result = start_arm64(file, &program, argv, envp, spawn);
    return true;
}

/* exec a program, `by_path`: found in PATH. */
static int execute(const char *file, bool by_path, char *const *argv, char *const *envp)
{
    int result;

    if (start(file, by_path, argv, envp, NULL, &result))
        return result;
    return by_path ? NEXT(execvpe)(file, argv, envp) : NEXT(execve)(file, argv, envp);
}

#pragma GCC visibility push(default)

int execve(const char *path, char *const argv[], char *const envp[])
{
    return execute(path, false, argv, envp);
}

int execvpe(const char *file, char *const argv[], char *const envp[])
{
    return execute(file, true, argv, envp);
}

int execv(const char *path, char *const argv[])
{
    return execute(path, false, argv, environ);
}

int execvp(const char *file, char *const argv[])
{
    return execute(file, true, argv, environ);
}

/* execl() and its like: the variadic arguments up to NULL are the program's; `envp` is an expression, which can take
 * the argument behind them. */
#define HOOK_EXECL(name, by_path, envp)                                          \
    int name(const char *file, const char *first, ...)                           \
    {                                                                            \
        size_t count = 1;                                                        \
        va_list list;                                                            \
                                                                                 \
        va_start(list, first);                                                   \
        while (va_arg(list, char *) != NULL)                                     \
            count++;                                                             \
        va_end(list);                                                            \
        char *words[count + 1];                                                  \
        words[0] = (char *)first;                                                \
        va_start(list, first);                                                   \
        for (size_t place = 1; place <= count; place++)                          \
            words[place] = va_arg(list, char *);                                 \
        char *const *environment = envp;                                         \
        va_end(list);                                                            \
        return execute(file, by_path, words, environment);                       \
    }

HOOK_EXECL(execl, false, environ)
HOOK_EXECL(execlp, true, environ)
HOOK_EXECL(execle, false, va_arg(list, char *const *))

#define HOOK_SPAWN(name, by_path)                                                                  \
    int name(pid_t *pid, const char *file, const posix_spawn_file_actions_t *actions,              \
             const posix_spawnattr_t *attributes, char *const argv[], char *const envp[])          \
    {                                                                                              \
        const struct spawn spawn = {pid, actions, attributes};                                     \
        int result;                                                                                \
                                                                                                   \
        if (start(file, by_path, argv, envp, &spawn, &result))                                     \
            return result;                                                                         \
        return NEXT(name)(pid, file, actions, attributes, argv, envp);                             \
    }

HOOK_SPAWN(posix_spawn, false)
HOOK_SPAWN(posix_spawnp, true)

ssize_t readlink(const char *path, char *to, size_t size)
{
    return hides_loader(path) ? own_link(to, size) : NEXT(readlink)(path, to, size);
}

ssize_t readlinkat(int dirfd, const char *path, char *to, size_t size)
{
    return hides_loader(path) ? own_link(to, size) : NEXT(readlinkat)(dirfd, path, to, size);
}

/* readlink() with _FORTIFY_SOURCE. */
ssize_t __readlink_chk(const char *path, char *to, size_t size, size_t room)
{
    return hides_loader(path) && size <= room ? own_link(to, size) : NEXT(__readlink_chk)(path, to, size, room);
}

char *realpath(const char *path, char *to)
{
    return NEXT(realpath)(hides_loader(path) ? own_program : path, to);
}

#pragma GCC visibility pop
