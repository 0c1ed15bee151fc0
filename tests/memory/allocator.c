/* malloc for the tests: it fails when it is told to, and counts what is not freed. By LD_PRELOAD. */
#define _GNU_SOURCE
#include <errno.h>
#include <stddef.h>
#include <stdlib.h>

extern void *__libc_malloc(size_t);
extern void *__libc_calloc(size_t, size_t);
extern void *__libc_realloc(void *, size_t);
extern void __libc_free(void *);

static long asked, failing, live, for_ever;

/* Fail the n-th request from here on, and if `all` those after it; none if n is 0. Until `fs_end`,
   which returns how many there were. */
void fs_fail(long n, long all) {
    for_ever = all;
    failing = n;
    __atomic_store_n(&asked, 0, __ATOMIC_SEQ_CST);
}
long fs_end(void) {
    failing = 0;
    return __atomic_load_n(&asked, __ATOMIC_SEQ_CST);
}
long fs_live(void) { return __atomic_load_n(&live, __ATOMIC_SEQ_CST); }

static int fails(void) {
    long n = __atomic_add_fetch(&asked, 1, __ATOMIC_SEQ_CST);
    if (failing && (n == failing || (for_ever && n > failing))) {
        errno = ENOMEM;
        return 1;
    }
    return 0;
}

static void *counted(void *p) {
    if (p) __atomic_add_fetch(&live, 1, __ATOMIC_SEQ_CST);
    return p;
}

void *malloc(size_t size) { return fails() ? NULL : counted(__libc_malloc(size)); }
void *calloc(size_t n, size_t size) { return fails() ? NULL : counted(__libc_calloc(n, size)); }
void *realloc(void *p, size_t size) {
    void *q = fails() ? NULL : __libc_realloc(p, size);
    return p ? q : counted(q);
}
void free(void *p) {
    if (p) __atomic_sub_fetch(&live, 1, __ATOMIC_SEQ_CST);
    __libc_free(p);
}
