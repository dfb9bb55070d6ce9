// Command render inserts the table of a run into a text, or prints it.
//
//	render RESULTS-FOLDER [FILE]
package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/autofs-restore-hook/autofs-restore-hook/test/matrix"
)

func main() {
	if len(os.Args) != 2 && len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: render RESULTS-FOLDER [FILE]")
		os.Exit(2)
	}
	if err := render(os.Args[1], os.Args[2:]); err != nil {
		fmt.Fprintf(os.Stderr, "render: %v\n", err)
		os.Exit(1)
	}
}

func render(dir string, files []string) error {
	rows, err := matrix.Load(dir)
	if err != nil {
		return err
	}
	if len(files) == 0 {
		fmt.Print(matrix.Markdown(rows))
		return nil
	}
	file := files[0]
	before, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	text, err := matrix.Insert(string(before), matrix.Runtimes, matrix.Markdown(rows))
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	variants, err := matrix.LoadVariants(filepath.Join(dir, "variants"))
	switch {
	case errors.Is(err, fs.ErrNotExist): // a run without them
	case err != nil:
		return err
	default:
		if text, err = matrix.Insert(text, matrix.Variants, matrix.VariantsMarkdown(variants)); err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
	}
	return os.WriteFile(file, []byte(text), 0o644)
}
