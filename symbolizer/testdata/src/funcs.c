/* One function of every kind that ELF symbol tables can describe. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

__attribute__((noinline)) int plain(int x) { return x * 7 + 1; }
__attribute__((noinline)) static int hidden_static(int x) { return x ^ 0x55; }

/* Names of one address. */
__attribute__((noinline)) int __original(int x) { return x - 3; }
int original(int x) __attribute__((alias("__original")));
int weak_original(int x) __attribute__((weak, alias("__original")));

/* Chosen at load time. */
static int picked(int x) { return x + 100; }
static int (*pick(void))(int) { return picked; }
int chosen(int x) __attribute__((ifunc("pick")));

/* The compiler moves the unlikely part to plain_split.cold. */
__attribute__((noinline)) int split(int x, char *text) {
  char copy[64];
  strncpy(copy, text, sizeof copy - 1);
  for (int i = 0; i < x; i++) {
    if (copy[i] == 'Q') abort();
    copy[i]++;
  }
  return x + copy[0];
}

/* Inlined twice over. */
static inline __attribute__((always_inline)) int leaf(int x) {
  return x * x + (int)strlen("four");
}
static inline __attribute__((always_inline)) int stem(int x) {
  int y = leaf(x) + 5;
  return y * 2;
}
__attribute__((noinline)) int root(int x) {
  int z = stem(x);
  return z - 9;
}

/* Assembly: sized, without a size, and a label without a type. */
int asm_sized(int), asm_unsized(int), asm_label(int);
__asm__(".text\n"
        ".globl asm_sized\n.type asm_sized,@function\nasm_sized:\n"
        " .cfi_startproc\n lea 1(%rdi),%eax\n ret\n .cfi_endproc\n"
        "inner_label:\n nop\n"
        ".size asm_sized,.-asm_sized\n"
        ".globl asm_unsized\n.type asm_unsized,@function\nasm_unsized:\n"
        " .cfi_startproc\n lea 2(%rdi),%eax\n ret\n .cfi_endproc\n"
        ".globl asm_label\nasm_label:\n"
        " lea 3(%rdi),%eax\n ret\n nop\n");

int main(int argc, char **argv) {
  printf("%d\n", plain(argc) + hidden_static(argc) + original(argc) +
                     weak_original(argc) + chosen(argc) + split(argc, argv[0]) +
                     root(argc) + asm_sized(argc) + asm_unsized(argc) +
                     asm_label(argc));
  return 0;
}
