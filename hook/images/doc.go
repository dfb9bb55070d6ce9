// Package images reads what CRIU's checkpoint images say about autofs mounts: which
// device number each had, at which path, and which process served it; and about
// control groups: which ones were watched.
//
// It is not a general reader of CRIU images (go-criu's crit is). It knows three
// kinds of file, mountpoints-<namespace>.img, autofs-<device>.img and files.img,
// decodes the few fields that matter, and treats all of it as hostile: checkpoints
// travel between machines, and their authors may have written anything. So
// there are limits on files, records and texts, and one false byte fails the
// whole reading; the repair then does without the images.
//
// What the images cannot tell is the old inode number of a mount's root: CRIU
// does not save it. It also drops strictexpire and ignore from the superblock's
// image; the raw options text of a mount still has them.
//
// The format (criu/image.c, criu/protobuf.c, images/mnt.proto,
// images/autofs.proto, read at 2cf8f13ca, after 4.2), all in the byte order of
// the machine that wrote it:
//
//	u32 0x54564319   IMG_COMMON_MAGIC; absent in images of version 1
//	u32 magic        of the kind of file
//	repeated:        u32 length, then so many bytes of protobuf
package images
