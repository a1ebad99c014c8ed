/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the writer of the module tells about each module that it patches. All
 * members have 8 bytes; the writer lays them out in just this order.
 */
#ifndef UPSPLICE_TARGET_H
#define UPSPLICE_TARGET_H

#include <linux/build_bug.h>
#include <linux/types.h>

struct klp_object;

/* A part of a function that the kernel rewrites. */
struct upsplice_hole {
	u64 start;
	u64 size;
};

/* What a function that is replaced looks like outside of its holes. */
struct upsplice_check {
	u64 size;
	u64 sum;
	const struct upsplice_hole *holes;
	u64 nr_holes;
};

/* A field that the livepatch core fills when the module is loaded. */
struct upsplice_field {
	void *at;
	u64 size;
};

struct upsplice_target {
	const char *name;			/* NULL behind the last */
	const struct upsplice_check *checks;	/* as many as klp_object.funcs */
	const struct upsplice_field *fields;
	u64 nr_fields;
	u64 keep_fields;			/* the kernel clears them itself */
	int (*pre_patch)(struct klp_object *obj);	/* of the patch, or NULL */
	void (*post_unpatch)(struct klp_object *obj);	/* of the patch, or NULL */
};

static_assert(sizeof(struct upsplice_hole) == 16);
static_assert(sizeof(struct upsplice_check) == 32);
static_assert(sizeof(struct upsplice_field) == 16);
static_assert(sizeof(struct upsplice_target) == 56);

extern const struct upsplice_target upsplice_targets[];

#endif
