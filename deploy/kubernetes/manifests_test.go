package kubernetes

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	"sigs.k8s.io/yaml"

	"github.com/quorate/quorate/embedded"
)

// objects are what a manifest may hold, by kind; each is decoded strictly: an unknown field, or one given twice, is an error.
func objects(t *testing.T) map[string]any {
	t.Helper()
	data, err := os.ReadFile("quorate.yaml")
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]any{}
	for i, doc := range bytes.Split(data, []byte("\n---\n")) {
		var head struct {
			APIVersion string `json:"apiVersion"`
			Kind       string `json:"kind"`
			Metadata   struct {
				Name      string `json:"name"`
				Namespace string `json:"namespace"`
			} `json:"metadata"`
		}
		if err := yaml.Unmarshal(doc, &head); err != nil {
			t.Fatalf("document %d: %v", i, err)
		}
		kinds := map[string]any{
			"v1/Namespace": &corev1.Namespace{}, "v1/Secret": &corev1.Secret{}, "v1/Service": &corev1.Service{},
			"policy/v1/PodDisruptionBudget": &policyv1.PodDisruptionBudget{}, "networking.k8s.io/v1/NetworkPolicy": &networkingv1.NetworkPolicy{},
			"apps/v1/StatefulSet": &appsv1.StatefulSet{},
		}
		o, ok := kinds[head.APIVersion+"/"+head.Kind]
		if !ok {
			t.Fatalf("document %d: %s %s is none of those that are looked at", i, head.APIVersion, head.Kind)
		}
		if err := yaml.UnmarshalStrict(doc, o); err != nil {
			t.Fatalf("%s %s: %v", head.Kind, head.Metadata.Name, err)
		}
		if head.Kind != "Namespace" && head.Metadata.Namespace != "quorate" {
			t.Errorf("%s %s is in namespace %q", head.Kind, head.Metadata.Name, head.Metadata.Namespace)
		}
		key := head.Kind + " " + head.Metadata.Name
		if found[key] != nil {
			t.Errorf("%s is there twice", key)
		}
		found[key] = o
	}
	return found
}

func get[T any](t *testing.T, all map[string]any, key string) *T {
	t.Helper()
	o, ok := all[key].(*T)
	if !ok {
		t.Fatalf("there is no %s", key)
	}
	return o
}

// The servers find each other before any of them is ready, and all start at once: a cluster whose readiness needs a majority never forms otherwise.
func TestServersFindEachOther(t *testing.T) {
	all := objects(t)
	set := get[appsv1.StatefulSet](t, all, "StatefulSet quorate")
	names := get[corev1.Service](t, all, "Service quorate")
	if set.Spec.PodManagementPolicy != appsv1.ParallelPodManagement {
		t.Errorf("pods start %q, want all at once", set.Spec.PodManagementPolicy)
	}
	if !names.Spec.PublishNotReadyAddresses || names.Spec.ClusterIP != corev1.ClusterIPNone || set.Spec.ServiceName != names.Name {
		t.Errorf("service %+v of set %q: want the names of pods that are not ready", names.Spec, set.Spec.ServiceName)
	}
	if c := get[corev1.Service](t, all, "Service quorate-client"); c.Spec.PublishNotReadyAddresses || c.Spec.ClusterIP == corev1.ClusterIPNone {
		t.Errorf("clients' service %+v: want ready pods only", c.Spec)
	}
	labels := set.Spec.Template.Labels
	for what, selector := range map[string]map[string]string{
		"set": set.Spec.Selector.MatchLabels, "names": names.Spec.Selector, "clients": get[corev1.Service](t, all, "Service quorate-client").Spec.Selector,
		"budget": get[policyv1.PodDisruptionBudget](t, all, "PodDisruptionBudget quorate").Spec.Selector.MatchLabels,
		"policy": get[networkingv1.NetworkPolicy](t, all, "NetworkPolicy quorate").Spec.PodSelector.MatchLabels,
		"spread": set.Spec.Template.Spec.TopologySpreadConstraints[0].LabelSelector.MatchLabels,
	} {
		for k, v := range selector {
			if labels[k] != v {
				t.Errorf("%s selects %s=%s, pods have %q", what, k, v, labels[k])
			}
		}
		if len(selector) == 0 {
			t.Errorf("%s selects every pod", what)
		}
	}
}

// The file names the pods, at the names that the service gives them.
func TestFileFitsPods(t *testing.T) {
	all := objects(t)
	set := get[appsv1.StatefulSet](t, all, "StatefulSet quorate")
	c, err := embedded.ParseCluster("cluster.json", []byte(get[corev1.Secret](t, all, "Secret quorate").StringData["cluster.json"]))
	if err != nil {
		t.Fatal(err)
	}
	if len(c.Machines) != int(*set.Spec.Replicas) {
		t.Errorf("%d machines, %d pods", len(c.Machines), *set.Spec.Replicas)
	}
	pod := set.Spec.Template.Spec.Containers[0]
	port := func(name string) int {
		i := slices.IndexFunc(pod.Ports, func(p corev1.ContainerPort) bool { return p.Name == name })
		if i < 0 {
			t.Fatalf("the container has no port %s", name)
		}
		return int(pod.Ports[i].ContainerPort)
	}
	for i, m := range c.Machines {
		name := fmt.Sprintf("%s-%d", set.Name, i)
		if want := name + "." + set.Spec.ServiceName + "." + set.Namespace + ".svc.cluster.local"; m.Name != name || m.Host != want {
			t.Errorf("machine %q at %q, want %q at %q", m.Name, m.Host, name, want)
		}
		if m.ClientPort != port("client") || m.ClusterPort != port("cluster") {
			t.Errorf("machine %s: ports %d and %d differ from the container's", m.Name, m.ClientPort, m.ClusterPort)
		}
	}
	i := slices.IndexFunc(pod.Env, func(e corev1.EnvVar) bool { return e.Name == "QUORATE_LOCAL" })
	if i < 0 || pod.Env[i].ValueFrom.FieldRef.FieldPath != "metadata.name" {
		t.Error("QUORATE_LOCAL is not the pod's name")
	}
	mounts := map[string]string{}
	for _, m := range pod.VolumeMounts {
		mounts[m.Name] = m.MountPath
	}
	if mounts["store"] != c.StoreDir || set.Spec.VolumeClaimTemplates[0].Name != "store" {
		t.Errorf("data goes to %s, the volume is at %s", c.StoreDir, mounts["store"])
	}
	if want := mounts["config"] + "/cluster.json"; !slices.Equal(pod.Args, []string{"server", "--config", want}) {
		t.Errorf("arguments %q, the file is %s", pod.Args, want)
	}
	if set.Spec.Template.Spec.Volumes[0].Secret.SecretName != "quorate" || len(set.Spec.Template.Spec.Volumes) != 1 {
		t.Errorf("volumes %+v", set.Spec.Template.Spec.Volumes)
	}
}

// Readiness asks for a majority, liveness must not; and what is ended has time to hand over.
func TestProbes(t *testing.T) {
	all := objects(t)
	set := get[appsv1.StatefulSet](t, all, "StatefulSet quorate")
	pod := set.Spec.Template.Spec
	c := pod.Containers[0]
	if e := c.ReadinessProbe.Exec; e == nil || !strings.Contains(strings.Join(e.Command, " "), "check --ready") {
		t.Errorf("readiness %+v, want `quorate check --ready`", c.ReadinessProbe)
	}
	if c.LivenessProbe.TCPSocket == nil || c.LivenessProbe.Exec != nil || c.StartupProbe != nil {
		t.Errorf("liveness %+v, startup %+v: a server that waits for the others must not be restarted for it", c.LivenessProbe, c.StartupProbe)
	}
	if g := *pod.TerminationGracePeriodSeconds; g < 40 {
		t.Errorf("%d s to end in, want more than it may take to hand over and stop", g)
	}
	if b := get[policyv1.PodDisruptionBudget](t, all, "PodDisruptionBudget quorate"); b.Spec.MaxUnavailable == nil || b.Spec.MaxUnavailable.IntValue() != 1 {
		t.Errorf("budget %+v, want one at a time", b.Spec)
	}
	if s := pod.TopologySpreadConstraints[0]; s.TopologyKey != corev1.LabelHostname || s.WhenUnsatisfiable != corev1.DoNotSchedule || s.MaxSkew != 1 {
		t.Errorf("spread %+v, want each on a node of its own", s)
	}
	if s := c.SecurityContext; *s.AllowPrivilegeEscalation || !*s.ReadOnlyRootFilesystem || len(s.Capabilities.Drop) != 1 || !*pod.SecurityContext.RunAsNonRoot {
		t.Errorf("security %+v, %+v", s, pod.SecurityContext)
	}
}
