/* SPDX-License-Identifier: Apache-2.0 */
/* ASM_COUNTED(X) lists the assembly functions of asm.S that count themselves,
 * each in asm_calls_<name>. C_COUNTED lists those of prologues.c. */
#define ASM_COUNTED(X)                                                       \
	X(push_first) X(push_extended) X(endbr_push) X(endbr_only)           \
	X(mov_leaf) X(sub_first) X(lea_first) X(xor_first) X(cmp_branch)     \
	X(nop1_first) X(nop5_first) X(nop9_first) X(jmp_first) X(call_first) \
	X(enter_first) X(inc_first) X(clobber_first) X(clobber_push)         \
	X(loop_to_push) X(loop_to_start) X(two_rets) X(rep_ret) X(ret_imm)   \
	X(fall_into) X(fallen_into) X(no_size) X(prologue_jcc) X(moves_sp)

#define C_COUNTED(X)                                                     \
	X(c_plain) X(c_patchable) X(c_switch) X(c_returns) X(c_cold)     \
	X(c_cold_taken) X(c_large_frame) X(c_many_args) X(c_struct)      \
	X(c_vararg) X(c_static) X(c_realigned)
