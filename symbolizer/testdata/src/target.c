/* A process to look at: it prints addresses of functions, then obeys commands
 * on its standard input until that ends.
 *   load PATH SYMBOL  dlopen, print the symbol's address
 *   unload            dlclose what was loaded last
 *   exec PATH         replace the program by another one
 *   leave             end the main thread, keep another one
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <link.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <unistd.h>

__attribute__((noinline)) int marker(int x) { return x * 3; }
__attribute__((noinline)) static int hidden_marker(int x) { return x * 5; }

static void *stay(void *unused) {
  (void)unused;
  char line[4096];
  while (fgets(line, sizeof line, stdin)) {
  }
  exit(0);
}

int main(int argc, char **argv) {
  printf("marker %p\n", (void *)marker);
  printf("hidden_marker %p\n", (void *)hidden_marker);
  printf("strtoul %p\n", dlsym(RTLD_DEFAULT, "strtoul"));
  printf("vdso %p\n", (void *)getauxval(AT_SYSINFO_EHDR));
  printf("data %p\n", (void *)&argc);
  printf("ready\n");
  fflush(stdout);
  char line[4096], path[4096], symbol[256];
  void *lib = NULL;
  while (fgets(line, sizeof line, stdin)) {
    if (sscanf(line, "load %4095s %255s", path, symbol) == 2) {
      lib = dlopen(path, RTLD_NOW);
      printf("%s %p\nready\n", symbol, lib ? dlsym(lib, symbol) : NULL);
      fflush(stdout);
    } else if (strncmp(line, "unload", 6) == 0) {
      dlclose(lib);
      printf("ready\n");
      fflush(stdout);
    } else if (sscanf(line, "exec %4095s", path) == 1) {
      execl(path, path, (char *)NULL);
    } else if (strncmp(line, "leave", 5) == 0) {
      pthread_t thread;
      pthread_create(&thread, NULL, stay, NULL);
      printf("ready\n");
      fflush(stdout);
      pthread_exit(NULL);
    }
  }
  return marker(argc) + hidden_marker(argc) + (argv == NULL);
}
