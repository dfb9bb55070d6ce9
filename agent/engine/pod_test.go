package engine

import (
	"strings"
	"testing"
)

func TestPodFromLabels(t *testing.T) {
	labels := func(change ...string) map[string]string {
		m := map[string]string{LabelNamespace: "default", LabelName: "legacy-0", LabelUID: "5f1c2d0e-1", LabelContainer: "main", "other": "x"}
		for i := 0; i < len(change); i += 2 {
			m[change[i]] = change[i+1]
		}
		return m
	}
	for name, test := range map[string]struct {
		labels map[string]string
		want   Pod
		ok     bool
	}{
		"a pod":         {labels(), Pod{"default", "legacy-0", "5f1c2d0e-1", "main"}, true},
		"no container":  {labels(LabelContainer, ""), Pod{"default", "legacy-0", "5f1c2d0e-1", ""}, true},
		"odd container": {labels(LabelContainer, "a}b"), Pod{"default", "legacy-0", "5f1c2d0e-1", ""}, true},
		"nothing":       {nil, Pod{}, false},
		"no name":       {labels(LabelName, ""), Pod{}, false},
		"no namespace":  {labels(LabelNamespace, ""), Pod{}, false},
		"no uid":        {labels(LabelUID, ""), Pod{}, false},
		"a path":        {labels(LabelNamespace, "../../kube-system"), Pod{}, false},
		"dots":          {labels(LabelNamespace, ".."), Pod{}, false},
		"a line":        {labels(LabelName, "a\nb"), Pod{}, false},
		"long":          {labels(LabelName, strings.Repeat("a", 254)), Pod{}, false},
		"not UTF-8":     {labels(LabelName, "a\xff"), Pod{}, false},
	} {
		if got, ok := podFromLabels(test.labels); got != test.want || ok != test.ok {
			t.Errorf("%s: %+v, %v, want %+v, %v", name, got, ok, test.want, test.ok)
		}
	}
}
