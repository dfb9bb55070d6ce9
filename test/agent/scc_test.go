package agent

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// securityContextConstraints is OpenShift's type of security.openshift.io/v1 as
// its API reference describes it: the module of its Go types has no release of
// these years.
type securityContextConstraints struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`

	Priority                        *int32              `json:"priority"`
	AllowPrivilegedContainer        bool                `json:"allowPrivilegedContainer"`
	DefaultAddCapabilities          []corev1.Capability `json:"defaultAddCapabilities"`
	RequiredDropCapabilities        []corev1.Capability `json:"requiredDropCapabilities"`
	AllowedCapabilities             []corev1.Capability `json:"allowedCapabilities"`
	AllowHostDirVolumePlugin        bool                `json:"allowHostDirVolumePlugin"`
	Volumes                         []string            `json:"volumes"`
	AllowHostNetwork                bool                `json:"allowHostNetwork"`
	AllowHostPorts                  bool                `json:"allowHostPorts"`
	AllowHostPID                    bool                `json:"allowHostPID"`
	AllowHostIPC                    bool                `json:"allowHostIPC"`
	UserNamespaceLevel              string              `json:"userNamespaceLevel"`
	DefaultAllowPrivilegeEscalation *bool               `json:"defaultAllowPrivilegeEscalation"`
	AllowPrivilegeEscalation        *bool               `json:"allowPrivilegeEscalation"`
	SELinuxContext                  typed               `json:"seLinuxContext"`
	RunAsUser                       typed               `json:"runAsUser"`
	SupplementalGroups              typed               `json:"supplementalGroups"`
	FSGroup                         typed               `json:"fsGroup"`
	ReadOnlyRootFilesystem          bool                `json:"readOnlyRootFilesystem"`
	Users                           []string            `json:"users"`
	Groups                          []string            `json:"groups"`
	SeccompProfiles                 []string            `json:"seccompProfiles"`
}

type typed struct {
	Type string `json:"type"`
}
