/* SPDX-License-Identifier: MIT */
/* Ends as its argument says: with that status, or by that signal if it is negative. */
#include <signal.h>
#include <stdlib.h>

int main(int argc, char **argv)
{
    int how = argc > 1 ? atoi(argv[1]) : 0;

    if (how < 0)
        raise(-how);
    return how;
}
