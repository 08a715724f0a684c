/*
 * The floor: what it costs to look at every pair of files, with nothing around it.
 *
 *   floor stat < LIST    lstats both sides                        (Fs)
 *   floor read < LIST    opens, reads and compares both sides     (Fr)
 *   floor drop < LIST    lets the cache forget the pages of both, so that they are read from disk next
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

typedef int comparison(const char *source, const char *copy);

static int same_size(const char *source, const char *copy)
{
    struct stat a, b;

    /* Either may be a link, as in /etc/ssl/certs; its size is then not the one to compare. */
    if (lstat(source, &a) != 0 || lstat(copy, &b) != 0)
        exit(2);
    return S_ISLNK(a.st_mode) || S_ISLNK(b.st_mode) || a.st_size == b.st_size;
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

static void drop_pages(const char *path)
{
    int file = open(path, O_RDONLY | O_CLOEXEC);

    if (file < 0 || posix_fadvise(file, 0, 0, POSIX_FADV_DONTNEED) != 0)
        exit(2);
    close(file);
}

static int dropped(const char *source, const char *copy)
{
    drop_pages(source);
    drop_pages(copy);
    return 1;
}

static comparison *named(const char *name)
{
    if (strcmp(name, "stat") == 0)
        return same_size;
    if (strcmp(name, "read") == 0)
        return same_bytes;
    return strcmp(name, "drop") == 0 ? dropped : NULL;
}

int main(int argc, char **argv)
{
    comparison *same = argc == 2 ? named(argv[1]) : NULL;
    char *source = NULL, *copy = NULL;
    size_t source_size = 0, copy_size = 0;
    int all = 1;

    if (same == NULL) {
        fputs("usage: floor stat|read|drop < LIST\n", stderr);
        return 2;
    }
    while (getdelim(&source, &source_size, '\0', stdin) > 0 && getdelim(&copy, &copy_size, '\0', stdin) > 0)
        if (!same(source, copy)) {
            fprintf(stderr, "floor: %s differs from %s\n", copy, source);
            all = 0;
        }
    return !all;
}
