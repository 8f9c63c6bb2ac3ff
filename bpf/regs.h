/* SPDX-License-Identifier: GPL-2.0-only OR BSD-3-Clause */
/*
 * Registers by role, per architecture: x86-64 System V ABI and Go's
 * ABIInternal (cmd/compile/abi-internal.md), AArch64 AAPCS64.
 */
#pragma once
#include "headers/kernel.h"

#if defined(__TARGET_ARCH_x86)
#define REG_SP(r) ((r)->sp)
#define REG_IP(r) ((r)->ip)
#define REG_FP(r) ((r)->bp)
#define REG_RET(r) ((r)->ax)
#define REG_LR(r) 0 /* on the stack */
#define REG_G(r) ((r)->r14)
/* A return probe runs after RET has popped the address. */
#define RETURN_PROBE_POPPED 8

/* Whether a conditional jump is taken: Intel SDM volume 1, appendix B. */
static __always_inline bool condition_holds(const struct pt_regs *r, __u32 cc)
{
	bool cf = r->flags >> 0 & 1, pf = r->flags >> 2 & 1, zf = r->flags >> 6 & 1, sf = r->flags >> 7 & 1,
	     of = r->flags >> 11 & 1, holds;

	switch (cc >> 1 & 7) {
	case 0:
		holds = of;
		break;
	case 1:
		holds = cf;
		break;
	case 2:
		holds = zf;
		break;
	case 3:
		holds = cf || zf;
		break;
	case 4:
		holds = sf;
		break;
	case 5:
		holds = pf;
		break;
	case 6:
		holds = sf != of;
		break;
	default:
		holds = zf || sf != of;
	}
	return holds != (cc & 1);
}

static __always_inline void c_args(const struct pt_regs *r, __u64 *a)
{
	a[0] = r->di;
	a[1] = r->si;
	a[2] = r->dx;
	a[3] = r->cx;
	a[4] = r->r8;
	a[5] = r->r9;
}

static __always_inline void go_args(const struct pt_regs *r, __u64 *a)
{
	a[0] = r->ax;
	a[1] = r->bx;
	a[2] = r->cx;
	a[3] = r->di;
	a[4] = r->si;
	a[5] = r->r8;
}
#elif defined(__TARGET_ARCH_arm64)
#define REG_SP(r) ((r)->user_regs.sp)
#define REG_IP(r) ((r)->user_regs.pc)
#define REG_FP(r) ((r)->user_regs.regs[29])
#define REG_RET(r) ((r)->user_regs.regs[0])
#define REG_LR(r) ((r)->user_regs.regs[30])
#define REG_G(r) ((r)->user_regs.regs[28])
#define RETURN_PROBE_POPPED 0

/* Only unconditional jumps are sites on arm64. */
static __always_inline bool condition_holds(const struct pt_regs *r, __u32 cc)
{
	return true;
}

static __always_inline void c_args(const struct pt_regs *r, __u64 *a)
{
	a[0] = r->user_regs.regs[0];
	a[1] = r->user_regs.regs[1];
	a[2] = r->user_regs.regs[2];
	a[3] = r->user_regs.regs[3];
	a[4] = r->user_regs.regs[4];
	a[5] = r->user_regs.regs[5];
}

static __always_inline void go_args(const struct pt_regs *r, __u64 *a)
{
	c_args(r, a);
}
#endif
