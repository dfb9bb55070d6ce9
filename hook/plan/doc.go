// Package plan decides what is to be done for each mount of a snapshot. It is pure: the
// same snapshot always gives the same plan, and nothing but the snapshot is looked at.
package plan
