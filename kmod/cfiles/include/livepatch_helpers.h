/* SPDX-License-Identifier: GPL-2.0-only */
#include <linux/livepatch_helpers.h>
