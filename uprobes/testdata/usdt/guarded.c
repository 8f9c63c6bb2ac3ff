// A probe that runs only while somebody listens.
#define _SDT_HAS_SEMAPHORES 1
#include <sys/sdt.h>

__attribute__((section(".probes"))) volatile unsigned short demo_guarded_semaphore;
__attribute__((section(".probes"))) volatile unsigned short demo_unheard_semaphore;

void guarded(int n)
{
	if (demo_guarded_semaphore)
		STAP_PROBE1(demo, guarded, n * 42);
	if (demo_unheard_semaphore)
		STAP_PROBE1(demo, unheard, n * 43);
}
