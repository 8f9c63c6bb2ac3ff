/* SPDX-License-Identifier: Apache-2.0 */
/* Hand-written functions, with and without unwind information. */
#if defined(__x86_64__)
	.text

/* void frames_assembly(long n, volatile unsigned long *sink): keeps the stack pointer elsewhere */
	.globl	frames_assembly
	.type	frames_assembly, @function
frames_assembly:
	.cfi_startproc
	mov	%rsp, %rax
	.cfi_def_cfa_register %rax
	sub	$64, %rsp
	and	$-64, %rsp
	mov	%rax, 24(%rsp)
	/* as OpenSSL does: the CFA is the word at rsp+24, and 8 more */
	.cfi_escape 0x0f, 0x05, 0x77, 0x18, 0x06, 0x23, 0x08
1:	incq	(%rsi)
	dec	%rdi
	jnz	1b
	mov	24(%rsp), %rsp
	.cfi_def_cfa %rsp, 8
	ret
	.cfi_endproc
	.size	frames_assembly, . - frames_assembly

/* the same without a word about it, and without a frame: only the return address is on the stack */
	.globl	frames_bare
	.type	frames_bare, @function
frames_bare:
	mov	$0x1234567, %rax
1:	incq	(%rsi)
	dec	%rdi
	jnz	1b
	ret
	.size	frames_bare, . - frames_bare

/* void frames_pushes(void (*leaf)(void)): pushes, uses rbp for data, calls; without unwind information */
	.globl	frames_pushes
	.type	frames_pushes, @function
frames_pushes:
	push	%rbx
	push	%rbp
	mov	$0x99, %ebp
	mov	%rdi, %rbx
	sub	$24, %rsp
	call	*%rbx
	add	$24, %rsp
	pop	%rbp
	pop	%rbx
	ret
	.size	frames_pushes, . - frames_pushes
#endif
	.section .note.GNU-stack, "", %progbits
