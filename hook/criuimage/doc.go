// Package criuimage reads autofs mounts from CRIU's checkpoint images: their device numbers,
// paths and masters. It also reads which control groups were watched, and when the next
// timer expires.
//
// It is not a general reader of CRIU images (go-criu's crit is). It reads four kinds of
// file, mountpoints-<namespace>.img, autofs-<device>.img, files.img and timens-<id>.img,
// and decodes only the fields that are needed. All input is untrusted: checkpoints are
// moved between machines, and may contain anything. So files, records and strings have
// limits, and one invalid byte, except in a timens image, fails the whole read; a repair
// then works without the images.
//
// The images do not have the inode number of a mount's root. CRIU also drops
// strictexpire and ignore from the superblock's image; the raw options of a mount still
// have them.
//
// The format (criu/image.c, criu/protobuf.c, images/mnt.proto,
// images/autofs.proto, read at 2cf8f13ca, after 4.2), all in the byte order of
// the machine that wrote it:
//
//	u32 0x54564319   IMG_COMMON_MAGIC; absent in images of version 1
//	u32 magic        of the kind of file
//	repeated:        u32 length, then a protobuf message of that length
package criuimage
