/* SPDX-License-Identifier: Apache-2.0 */
/* The counted functions of the program and of its library. */
#define TRUTH_FUNCTIONS(X)                                    \
	X(app_run) X(app_step) X(app_compare)                 \
	X(lib_work) X(lib_hidden) X(lib_visit) X(lib_leaf)

int lib_work(int n);
int lib_visit(int n, int (*compare)(int, int));
int lib_leaf(int n);
