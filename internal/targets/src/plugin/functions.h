/* SPDX-License-Identifier: Apache-2.0 */
/* The counted functions of the program and of its plug-in. */
#define TRUTH_FUNCTIONS(X)                                  \
	X(host_start) X(host_round) X(host_callback)        \
	X(plug_catch) X(plug_throw) X(plug_after)
