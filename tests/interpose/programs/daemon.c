/* SPDX-License-Identifier: MIT */
/* Leaves a daemon behind, which uses KVM only after its parents are gone, and writes "done" into a file. */
#include "vmm.h"

int main(int argc, char **argv)
{
    FILE *report;

    CHECK(argc == 2);
    if (fork() != 0)
        return 7;
    CHECK(setsid() != -1);
    if (fork() != 0)
        return 0;
    usleep(300 * 1000);
    make_vmm();
    usleep(300 * 1000);
    make_vmm();
    report = fopen(argv[1], "w");
    CHECK(report != NULL && fputs("done", report) >= 0 && fclose(report) == 0);
    return 0;
}
