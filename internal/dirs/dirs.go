// Package dirs lists folders. os.ReadDir sorts what it lists, and the machine code
// for that is 13 KB of a program that is to be small.
package dirs

import "os"

// Entries lists a folder, in no order.
func Entries(name string) ([]os.DirEntry, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return f.ReadDir(-1)
}
