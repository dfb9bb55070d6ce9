// Package automount is about the automount daemon of autofs 5: whether it will mount its
// triggers again on SIGHUP ([CanReload]), and how a mount is opened on which processes
// wait ([OpenBlockedRoots]).
package automount
