// Package plan chooses the cure for each mount of a snapshot. It has no side effects and
// reads nothing but the snapshot: the same snapshot always gives the same plan.
package plan
