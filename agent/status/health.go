package status

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"time"
)

// Check says what is wrong, or nil.
type Check struct {
	Name string
	// Ask must end soon after its context.
	Ask func(ctx context.Context) error
}

// limit bounds the whole answer: kubelets wait a second by default, and the
// manifests say 5 s.
const limit = 4 * time.Second

// Handler answers 200 if every check passes and 503 if one fails, with one line
// for each.
func Handler(checks ...Check) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), limit)
		defer cancel()
		status := http.StatusOK
		var text strings.Builder
		for _, c := range checks {
			if err := c.Ask(ctx); err != nil {
				status = http.StatusServiceUnavailable
				fmt.Fprintf(&text, "[-] %s: %q\n", c.Name, err.Error())
			} else {
				fmt.Fprintf(&text, "[+] %s\n", c.Name)
			}
		}
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.WriteHeader(status)
		_, _ = w.Write([]byte(text.String())) // the kubelet's problem
	})
}
