package matrix

// Variant has the result of a container, or of a restore, that differs from those of the
// other table.
type Variant struct {
	Node     string `json:"node"`
	Engine   string `json:"engine"`
	Name     string `json:"name"`     // what differs
	Versions string `json:"versions"` // of CRIU and the runtime
	Date     string `json:"date"`     // of the run, YYYY-MM-DD
	Mounts   string `json:"mounts"`   // outcomes for each kind of mount, or why there are none
	Served   string `json:"served"`   // accesses that were served
	Units    string `json:"units"`    // units that are not as before
}

// LoadVariants reads the rows of all nodes, in the order of the files' names.
func LoadVariants(dir string) ([]Variant, error) { return load[Variant](dir) }

// VariantsMarkdown returns the table.
func VariantsMarkdown(rows []Variant) string {
	lines := [][]string{{"node", "engine", "what differs", "versions", "mounts", "accesses", "units", "date"}}
	for _, r := range rows {
		lines = append(lines, []string{r.Node, r.Engine, r.Name, r.Versions, r.Mounts, r.Served, r.Units, r.Date})
	}
	return table(lines)
}
