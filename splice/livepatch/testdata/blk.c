// SPDX-License-Identifier: GPL-2.0-only
/*
 * The new code of functions of a real module, virtio_blk, for the test that loads
 * it: it refers to what is in the module, in one that this depends on, and in
 * vmlinux, and registers every kind of callback.
 */
#define DEBUG /* pr_debug is on from the start */
#include <linux/blkdev.h>
#include <linux/jump_label.h>
#include <linux/livepatch.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/virtio.h>

/* of virtio_blk, not exported */
extern int major;
extern int virtblk_get_cache_mode(struct virtio_device *vdev);

/* of vmlinux, not exported */
extern char *saved_command_line;

/* how struct virtio_blk starts */
struct upsplice_blk {
	struct mutex vdev_mutex;
	struct virtio_device *vdev;
};

static DEFINE_STATIC_KEY_TRUE(upsplice_new_key);
static int *volatile upsplice_major = &major; /* in data: 64 bits */

static ssize_t serial_show(struct device *dev, struct device_attribute *attr, char *buf);

static ssize_t __used serial_show(struct device *dev, struct device_attribute *attr, char *buf)
{
	struct gendisk *disk = dev_to_disk(dev);
	struct upsplice_blk *blk = disk->private_data;
	struct virtqueue *vq = list_first_entry(&blk->vdev->vqs, struct virtqueue, list);

	pr_debug("upsplice new debug message\n");
	WARN_ON_ONCE(THIS_MODULE->state != MODULE_STATE_LIVE || strcmp(THIS_MODULE->name, "virtio_blk"));
	return sysfs_emit(buf, "patched major=%d,%d ring=%d cache=%d key=%d cmdline=%d\n",
			  major, *upsplice_major, virtqueue_get_vring_size(vq) > 0,
			  virtblk_get_cache_mode(blk->vdev) <= 1,
			  static_branch_likely(&upsplice_new_key) ? 1 : 0, saved_command_line[0] != 0);
}

int upsplice_before_patch(struct klp_object *obj);
int upsplice_before_patch(struct klp_object *obj)
{
	pr_warn("upsplice callback pre_patch of %s major=%d\n", obj->name, major);
	return 0;
}

void upsplice_after_patch(struct klp_object *obj);
void upsplice_after_patch(struct klp_object *obj)
{
	pr_warn("upsplice callback post_patch of %s\n", obj->name);
}

void upsplice_before_unpatch(struct klp_object *obj);
void upsplice_before_unpatch(struct klp_object *obj)
{
	pr_warn("upsplice callback pre_unpatch of %s\n", obj->name);
}

void upsplice_after_unpatch(struct klp_object *obj);
void upsplice_after_unpatch(struct klp_object *obj)
{
	pr_warn("upsplice callback post_unpatch of %s major=%d\n", obj->name, major);
}
