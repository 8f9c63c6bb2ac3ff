/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Functions of one argument (rdi) and one result (rax = rdi + 1 unless said
 * otherwise), each with another beginning. They count themselves by an increment
 * in memory, placed behind the beginning that matters: flags and the counter are
 * all it changes.
 */
	.text

	.macro counted name
	.balign 16
	.globl \name
	.type \name, @function
\name:
	.endm

	.macro tick name
	incq asm_calls_\name(%rip)
	.endm

	.macro done name
	.size \name, . - \name
	.endm

counted push_first
	push %rbp
	mov %rsp, %rbp
	tick push_first
	lea 1(%rdi), %rax
	pop %rbp
	ret
done push_first

counted push_extended /* two-byte push of r15 */
	push %r15
	mov %rdi, %r15
	tick push_extended
	lea 1(%r15), %rax
	pop %r15
	ret
done push_extended

counted endbr_push
	endbr64
	push %rbp
	mov %rsp, %rbp
	tick endbr_push
	lea 1(%rdi), %rax
	pop %rbp
	ret
done endbr_push

counted endbr_only /* nothing emulated before the end */
	endbr64
	tick endbr_only
	lea 1(%rdi), %rax
	ret
done endbr_only

counted mov_leaf
	mov %rdi, %rax
	tick mov_leaf
	add $1, %rax
	ret
done mov_leaf

counted sub_first /* a push follows, but sp is no longer what it was */
	sub $24, %rsp
	push %rbx
	tick sub_first
	lea 1(%rdi), %rax
	pop %rbx
	add $24, %rsp
	ret
done sub_first

counted lea_first
	lea 1(%rdi), %rax
	tick lea_first
	ret
done lea_first

counted xor_first /* then a push at an unchanged sp: a better place */
	xor %eax, %eax
	push %rbx
	mov %rdi, %rbx
	tick xor_first
	lea 1(%rbx), %rax
	pop %rbx
	ret
done xor_first

counted cmp_branch /* conditional jump second: even arguments leave early */
	test $1, %dil
	je 1f
	push %rbx
	tick cmp_branch
	lea 1(%rdi), %rax
	pop %rbx
	ret
1:	tick cmp_branch
	lea 1(%rdi), %rax
	ret
done cmp_branch

counted nop1_first
	nop
	tick nop1_first
	lea 1(%rdi), %rax
	ret
done nop1_first

counted nop5_first
	.byte 0x0f, 0x1f, 0x44, 0x00, 0x00 /* nopl 0(%rax, %rax, 1) in five bytes */
	tick nop5_first
	lea 1(%rdi), %rax
	ret
done nop5_first

counted nop9_first
	nopw 0x200(%rax, %rax, 1)
	tick nop9_first
	lea 1(%rdi), %rax
	ret
done nop9_first

counted jmp_first
	jmp 1f
	ud2
1:	tick jmp_first
	lea 1(%rdi), %rax
	ret
done jmp_first

counted call_first /* calls one that it shares the register with */
	call 1f
	tick call_first
	ret
1:	lea 1(%rdi), %rax
	ret
done call_first

counted enter_first
	enter $16, $0
	tick enter_first
	lea 1(%rdi), %rax
	leave
	ret
done enter_first

counted inc_first /* the counter itself comes first: must be counted once */
	tick inc_first
	lea 1(%rdi), %rax
	ret
done inc_first

counted clobber_first /* the argument is gone after the first instruction */
	lea 1(%rdi), %rdi
	push %rbx
	tick clobber_first
	mov %rdi, %rax
	pop %rbx
	ret
done clobber_first

counted clobber_push /* the argument is gone before the push */
	mov %rdi, %rax
	xor %edi, %edi
	push %rbx
	tick clobber_push
	add $1, %rax
	pop %rbx
	ret
done clobber_push

counted loop_to_push /* runs its push three times per call */
	endbr64
	mov $3, %ecx
1:	push %rbx
	pop %rbx
	dec %ecx
	jnz 1b
	tick loop_to_push
	lea 1(%rdi), %rax
	ret
done loop_to_push

counted loop_to_start /* jumps back to its own first byte: argument 0 comes out, result 1 */
	sub $1, %rdi
	jns loop_to_start
	tick loop_to_start
	mov $1, %eax
	ret
done loop_to_start

counted two_rets
	push %rbx
	tick two_rets
	test $1, %dil
	je 1f
	lea 1(%rdi), %rax
	pop %rbx
	ret
1:	lea 1(%rdi), %rax
	pop %rbx
	ret
done two_rets

counted rep_ret
	tick rep_ret
	lea 1(%rdi), %rax
	rep ret
done rep_ret

counted ret_imm /* returns with an immediate, of nothing */
	tick ret_imm
	lea 1(%rdi), %rax
	ret $0
done ret_imm

counted fall_into /* ends where the next function begins: one RET for two */
	push %rbx
	tick fall_into
	pop %rbx
	done fall_into
	.globl fallen_into
	.type fallen_into, @function
fallen_into:
	push %rbx
	tick fallen_into
	lea 1(%rdi), %rax
	pop %rbx
	ret
done fallen_into

counted no_size /* the symbol table does not say how long it is */
	push %rbx
	tick no_size
	lea 1(%rdi), %rax
	pop %rbx
	ret

counted prologue_jcc /* like Go's: a compare and a rare branch, then the push */
	cmp $0x1000, %rsp
	jbe 1f
	push %rbp
	mov %rsp, %rbp
	tick prologue_jcc
	lea 1(%rdi), %rax
	pop %rbp
	ret
1:	ud2
done prologue_jcc

counted moves_sp /* has its work on a stack of its own */
	mov %rsp, %rax
	lea other_stack_end(%rip), %rsp
	push %rax
	tick moves_sp
	lea 1(%rdi), %rax
	pop %rsp
	ret
done moves_sp

/* Too small to count themselves; their callers count. They follow each other
 * without padding. */
	.balign 16
	.globl ret_only
	.type ret_only, @function
ret_only:
	ret
done ret_only
	.globl jmp_only
	.type jmp_only, @function
jmp_only:
	jmp push_first
done jmp_only
	.globl endbr_ret
	.type endbr_ret, @function
endbr_ret:
	endbr64
	ret
done endbr_ret

	.bss
	.balign 16
	.skip 4096
other_stack_end:

	.section .note.GNU-stack, "", @progbits
