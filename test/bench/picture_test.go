package bench

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/autofs-restore-hook/autofs-restore-hook/test/lab"
)

// tracedStages restores a few times with the kernel's trace on, and returns the timelines
// of the restore with the median duration, by stage. The trace makes the calls longer by a
// third.
func tracedStages(b *testing.B, checkpoint *lab.Checkpoint, program string, size int) map[string]timeline {
	b.Helper()
	var all []map[string]timeline
	total := func(stages map[string]timeline) (sum time.Duration) {
		for _, t := range stages {
			sum += t.took()
		}
		return sum
	}
	for range 5 {
		var names []string
		counts := false
		events := record(b, func() {
			installTimed(b, program)
			restored := checkpoint.Restore(b, lab.RestoreOptions{})
			defer end(b, restored)
			counts = preserved(b, restored.ReadOldReport(b), size)
			names = stageNames(restored.Log)
		})
		stages := map[string]timeline{}
		for i, t := range timelines(events, program) {
			if i < len(names) && slices.Contains(workStages, names[i]) {
				stages[names[i]] = t
			}
		}
		if counts {
			all = append(all, stages)
		}
	}
	if len(all) == 0 {
		return nil
	}
	slices.SortFunc(all, func(a, b map[string]timeline) int { return int(total(a) - total(b)) })
	return all[len(all)/2]
}

// stageNames are the stages at which CRIU called the action scripts, in their order.
func stageNames(log string) (names []string) {
	for line := range strings.Lines(log) {
		if m := running.FindStringSubmatch(strings.TrimSuffix(line, "\n")); m != nil {
			names = append(names, m[1])
		}
	}
	return names
}

// printTimelines prints what the time of each stage is spent on, and writes the picture of
// it beside the program.
func printTimelines(b *testing.B, stages map[string]timeline, program string, size int, most time.Duration) {
	b.Helper()
	fmt.Printf("\n%s, %d automounts: where the time goes, in one restore with the kernel's trace on\n\n", program, size)
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "stage\t"+strings.Join(classNames[:], "\t")+"\tsum\t")
	for _, name := range workStages {
		fmt.Fprint(w, name)
		for _, d := range stages[name].sums() {
			fmt.Fprintf(w, "\t%s", milliseconds(d))
		}
		fmt.Fprintf(w, "\t%s\t\n", milliseconds(stages[name].took()))
	}
	w.Flush()
	path := filepath.Join(lab.Checkout(), "bin", fmt.Sprintf("timeline-%s-%d.svg", filepath.Base(program), size))
	if err := os.WriteFile(path, []byte(picture(stages, most, fmt.Sprintf("%s, %d automounts", filepath.Base(program), size))), 0o644); err != nil {
		b.Error(err)
	}
	fmt.Println(path)
}

var colours = [classes]string{"#9e9e9e", "#c7a76c", "#2e7d32", "#8e44ad", "#c0392b", "#2980b9", "#ecf0f1", "#616161"}

// blur divides a timeline into steps, each of the class that takes most of it.
func (t timeline) blur(step time.Duration) timeline {
	var blurred timeline
	for from := time.Duration(0); from < t.took(); from += step {
		to := min(from+step, t.took())
		var within [classes]time.Duration
		for _, s := range t {
			within[s.class] += max(0, min(s.to, to)-max(s.from, from))
		}
		kind := class(slices.Index(within[:], slices.Max(within[:])))
		if n := len(blurred); n > 0 && blurred[n-1].class == kind {
			blurred[n-1].to = to
		} else {
			blurred = append(blurred, stretch{kind, from, to})
		}
	}
	return blurred
}

// longest is the duration of the longest stage.
func longest(stages map[string]timeline) (most time.Duration) {
	for _, t := range stages {
		most = max(most, t.took())
	}
	return most
}

// picture draws the timelines as SVG, one above the other; most is the width of all.
func picture(stages map[string]timeline, most time.Duration, title string) string {
	const left, width, bar, gap, top = 170, 900, 34, 26, 64
	scale := width / most.Seconds()
	at := func(d time.Duration) float64 { return left + d.Seconds()*scale }
	var s strings.Builder
	height := top + len(workStages)*(bar+gap) + 30
	fmt.Fprintf(&s, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" font-family="sans-serif" font-size="13">`+"\n", left+width+90, height)
	fmt.Fprintf(&s, `<rect width="100%%" height="100%%" fill="white"/><text x="10" y="20" font-size="15">%s</text>`+"\n", title)
	for i, name := range classNames {
		x := 10 + i*130
		fmt.Fprintf(&s, `<rect x="%d" y="32" width="12" height="12" fill="%s" stroke="#888"/><text x="%d" y="43">%s</text>`+"\n", x, colours[i], x+17, name)
	}
	for i, name := range workStages {
		y := top + i*(bar+gap)
		fmt.Fprintf(&s, `<text x="10" y="%d">%s</text>`+"\n", y+bar/2+5, name)
		for _, part := range stages[name].blur(most / width) {
			fmt.Fprintf(&s, `<rect x="%.1f" y="%d" width="%.1f" height="%d" fill="%s"/>`+"\n", at(part.from), y, (part.to-part.from).Seconds()*scale, bar, colours[part.class])
		}
		fmt.Fprintf(&s, `<text x="%.1f" y="%d">%s ms</text>`+"\n", at(stages[name].took())+6, y+bar/2+5, milliseconds(stages[name].took()))
	}
	y := top + len(workStages)*(bar+gap)
	step := time.Millisecond * (1 + most/(20*time.Millisecond))
	for tick := time.Duration(0); tick <= most; tick += step {
		fmt.Fprintf(&s, `<line x1="%.1f" y1="%d" x2="%.1f" y2="%d" stroke="#aaa"/><text x="%.1f" y="%d" font-size="11" text-anchor="middle">%d</text>`+"\n",
			at(tick), top-8, at(tick), y, at(tick), y+14, tick.Milliseconds())
	}
	s.WriteString("</svg>\n")
	return s.String()
}
