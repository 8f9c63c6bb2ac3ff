/* SPDX-License-Identifier: Apache-2.0 */
/* What the C part does; each function counts its calls. */
#pragma once

enum { C_WORK, C_LEAF, C_THREAD, C_START, C_FUNCTIONS };

/* two leaves around a call of Go's goBack */
int c_work(int n);

/* threads that each call Go's goFromThread, rounds times; returns when they have ended */
void c_start(int threads, int rounds);

long c_calls(int function);
