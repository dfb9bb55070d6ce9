module github.com/autofs-restore-hook/autofs-restore-hook/test

go 1.26.0

require github.com/autofs-restore-hook/autofs-restore-hook v0.0.0

replace github.com/autofs-restore-hook/autofs-restore-hook => ..
