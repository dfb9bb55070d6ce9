package hook

import (
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/container"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/journal"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/plan"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/report"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/stage"
)

// Names from before the split into packages, until all callers have been changed.
//
//nolint:revive // temporary
type (
	Report       = report.Report
	MountReport  = report.Mount
	MasterReport = report.Master
	Outcome      = report.Outcome
	Cure         = plan.Cure
	Waiter       = container.Waiter
	Strategy     = container.Strategy
)

//nolint:revive // temporary
const (
	Repaired     = report.Repaired
	NothingToDo  = report.NothingToDo
	Partial      = report.Partial
	Failed       = report.Failed
	Planned      = report.Planned
	Healthy      = plan.Healthy
	Preserved    = plan.Preserved
	Reexecuted   = plan.Reexecuted
	Reloaded     = plan.Reloaded
	Restarted    = plan.Restarted
	Unrepaired   = plan.Unrepaired
	CannotJudge  = plan.CannotJudge
	Auto         = container.Auto
	Directory    = journal.Directory
	RunDirectory = journal.Directory
	Repair       = stage.Repair
)
