// Package kube posts Kubernetes Events.
//
// One POST of one small object is all that the agent asks of the API server, so
// this is net/http and not client-go with its hundreds of packages; test/apiserver
// posts it to a real API server. It needs the verb "create" on events and nothing
// else.
package kube

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/autofs-restore-hook/autofs-restore-hook/agent/engine"
)

// ServiceAccount is where the kubelet mounts the token and the certificate.
const ServiceAccount = "/var/run/secrets/kubernetes.io/serviceaccount"

// maxMessage bounds an Event's message, in bytes (Kubernetes: 1024).
const maxMessage = 1024

const requestTime = 10 * time.Second

// ErrNoCluster means that the agent does not run in a pod.
var ErrNoCluster = errors.New("KUBERNETES_SERVICE_HOST is not set: not in a cluster")

// Client posts to the API server of the cluster that it runs in.
type Client struct {
	base    string
	token   string // file; read for each request, since the kubelet replaces it
	node    string
	version string
	http    *http.Client
}

// InCluster makes a client from what the kubelet gives every pod. node is the
// name of the node, for the Event's source.
func InCluster(getenv func(string) string, serviceAccount, node, version string) (*Client, error) {
	host, port := getenv("KUBERNETES_SERVICE_HOST"), getenv("KUBERNETES_SERVICE_PORT")
	if host == "" || port == "" {
		return nil, ErrNoCluster
	}
	pem, err := os.ReadFile(filepath.Join(serviceAccount, "ca.crt"))
	if err != nil {
		return nil, fmt.Errorf("certificate of the API server: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, errors.New("certificate of the API server: ca.crt holds none")
	}
	transport := &http.Transport{
		TLSClientConfig:     &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12},
		TLSHandshakeTimeout: requestTime,
		MaxIdleConns:        1,
		IdleConnTimeout:     time.Minute,
	}
	return &Client{
		base:    "https://" + net.JoinHostPort(host, port),
		token:   filepath.Join(serviceAccount, "token"),
		node:    node,
		version: version,
		http:    &http.Client{Transport: transport, Timeout: requestTime},
	}, nil
}

// Warning posts an Event of type Warning about a pod's container.
func (c *Client) Warning(ctx context.Context, pod engine.Pod, reason, message string, at time.Time) error {
	body, err := json.Marshal(c.warning(pod, reason, message, at))
	if err != nil {
		return fmt.Errorf("event: %w", err)
	}
	token, err := os.ReadFile(c.token)
	if err != nil {
		return fmt.Errorf("event: %w", err)
	}
	where := c.base + "/api/v1/namespaces/" + url.PathEscape(pod.Namespace) + "/events"
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, where, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("event: %w", err)
	}
	request.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(token)))
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("User-Agent", "autofs-restore-agent/"+c.version)
	response, err := c.http.Do(request)
	if err != nil {
		return fmt.Errorf("event: %w", err)
	}
	defer response.Body.Close()
	text, _ := io.ReadAll(io.LimitReader(response.Body, 2048))
	switch {
	case response.StatusCode == http.StatusConflict: // an earlier attempt did arrive
		return nil
	case response.StatusCode >= http.StatusMultipleChoices:
		return fmt.Errorf("event: %s: %q", response.Status, text)
	}
	return nil
}

// event is a core/v1 Event.
type event struct {
	APIVersion     string    `json:"apiVersion"`
	Kind           string    `json:"kind"`
	Metadata       meta      `json:"metadata"`
	InvolvedObject reference `json:"involvedObject"`
	Reason         string    `json:"reason"`
	Message        string    `json:"message"`
	Source         source    `json:"source"`
	FirstTimestamp string    `json:"firstTimestamp"`
	LastTimestamp  string    `json:"lastTimestamp"`
	Count          int       `json:"count"`
	Type           string    `json:"type"`
}

type meta struct {
	Name      string `json:"name"`
	Namespace string `json:"namespace"`
}

type reference struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Namespace  string `json:"namespace"`
	Name       string `json:"name"`
	UID        string `json:"uid"`
	FieldPath  string `json:"fieldPath,omitempty"`
}

type source struct {
	Component string `json:"component"`
	Host      string `json:"host,omitempty"`
}

// warning has a name made of its time, so that a second attempt is recognised.
func (c *Client) warning(pod engine.Pod, reason, message string, at time.Time) event {
	const suffix = 17 // "." and 16 digits
	stamp := at.UTC().Format(time.RFC3339)
	e := event{
		APIVersion: "v1", Kind: "Event",
		Metadata: meta{
			Name:      fmt.Sprintf("%s.%016x", pod.Name[:min(len(pod.Name), 253-suffix)], at.UnixNano()),
			Namespace: pod.Namespace,
		},
		InvolvedObject: reference{APIVersion: "v1", Kind: "Pod", Namespace: pod.Namespace, Name: pod.Name, UID: pod.UID},
		Reason:         reason,
		Message:        shorten(message, maxMessage),
		Source:         source{Component: "autofs-restore-agent", Host: c.node},
		FirstTimestamp: stamp, LastTimestamp: stamp, Count: 1, Type: "Warning",
	}
	if pod.Container != "" {
		e.InvolvedObject.FieldPath = "spec.containers{" + pod.Container + "}"
	}
	return e
}

// shorten cuts a text at a whole character.
func shorten(text string, most int) string {
	text = strings.ToValidUTF8(text, "\uFFFD")
	if len(text) <= most {
		return text
	}
	const dots = "..."
	cut := most - len(dots)
	for cut > 0 && text[cut]&0xC0 == 0x80 {
		cut--
	}
	return text[:cut] + dots
}
