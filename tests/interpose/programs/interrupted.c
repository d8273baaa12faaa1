/* SPDX-License-Identifier: MIT */
/* Prints "ready", and ends half a second after the first SIGINT with the number of them as its status. */
#include <signal.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

static volatile sig_atomic_t count;

static void interrupted(int number)
{
    (void)number;
    count++;
}

int main(void)
{
    const struct sigaction action = {.sa_handler = interrupted};
    const struct timespec tick = {.tv_nsec = 10 * 1000 * 1000};

    sigaction(SIGINT, &action, NULL);
    puts("ready");
    fflush(stdout);
    while (count == 0)
        pause();
    for (int i = 0; i < 50; i++)
        nanosleep(&tick, NULL);
    return count;
}
