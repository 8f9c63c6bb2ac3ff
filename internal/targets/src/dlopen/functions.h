/* SPDX-License-Identifier: Apache-2.0 */
/* The counted functions of the program and of its two plug-ins. */
#define TRUTH_FUNCTIONS(X)                   \
	X(host_round) X(host_callback)       \
	X(plug_run) X(plug_helper)           \
	X(other_run) X(other_helper)
