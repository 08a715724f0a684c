/*
 * The floor: what it costs to look at every pair of files, with nothing around it.
 *
 *   floor stat < LIST    lstats both sides                        (Fs)
 *   floor read < LIST    opens, reads and compares both sides     (Fr)
 *
 * LIST holds the paths of source and copy in turn, each with a NUL behind it. Ends 0 where all pairs are alike (for
 * stat: of one size), 1 where one is not, 2 for trouble.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define CHUNK (128 * 1024)

static char one[CHUNK], other[CHUNK];

static int same_size(const char *source, const char *copy)
{
    struct stat a, b;

    /* A source may be a link, as in /etc/ssl/certs; its size is then not the one to compare. */
    if (lstat(source, &a) != 0 || lstat(copy, &b) != 0)
        exit(2);
    return S_ISLNK(a.st_mode) || a.st_size == b.st_size;
}

static int same_bytes(const char *source, const char *copy)
{
    int a = open(source, O_RDONLY | O_CLOEXEC), b = open(copy, O_RDONLY | O_CLOEXEC), same = 1;
    ssize_t n, m;

    if (a < 0 || b < 0)
        exit(2);
    do {
        n = read(a, one, CHUNK);
        m = read(b, other, CHUNK);
        if (n < 0 || m < 0)
            exit(2);
        same = n == m && memcmp(one, other, n) == 0;
    } while (same && n > 0);
    close(a);
    close(b);
    return same;
}

int main(int argc, char **argv)
{
    int (*same)(const char *, const char *);
    char *source = NULL, *copy = NULL;
    size_t source_size = 0, copy_size = 0;
    int all = 1;

    if (argc != 2 || (strcmp(argv[1], "stat") != 0 && strcmp(argv[1], "read") != 0)) {
        fputs("usage: floor stat|read < LIST\n", stderr);
        return 2;
    }
    same = strcmp(argv[1], "stat") == 0 ? same_size : same_bytes;
    while (getdelim(&source, &source_size, '\0', stdin) > 0 && getdelim(&copy, &copy_size, '\0', stdin) > 0)
        all &= same(source, copy);
    return !all;
}
