package modelfolder

import "golang.org/x/sys/unix"

// exchange puts a folder in the place of another, which has its place then; there always is one, where the file system can do so.
func exchange(from, to string) error {
	if err := unix.Renameat2(unix.AT_FDCWD, from, unix.AT_FDCWD, to, unix.RENAME_EXCHANGE); err == nil {
		return nil
	}
	return exchangeByRename(from, to)
}
