package kubernetes

import (
	"os"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	"sigs.k8s.io/yaml"
)

// TestGuide: the Deployment of docs/guides/share-work-between-pods.md is one, and its pods can be of it.
func TestGuide(t *testing.T) {
	text, err := os.ReadFile("../../docs/guides/share-work-between-pods.md")
	if err != nil {
		t.Fatal(err)
	}
	_, doc, ok := strings.Cut(string(text), "\n```yaml\n")
	doc, _, closed := strings.Cut(doc, "\n```\n")
	if !ok || !closed {
		t.Fatal("the guide has no yaml")
	}
	var d appsv1.Deployment
	if err := yaml.UnmarshalStrict([]byte(doc), &d); err != nil {
		t.Fatal(err)
	}
	if d.APIVersion != "apps/v1" || d.Kind != "Deployment" {
		t.Errorf("it is a %s %s", d.APIVersion, d.Kind)
	}
	for k, v := range d.Spec.Selector.MatchLabels {
		if d.Spec.Template.Labels[k] != v {
			t.Errorf("its pods have the label %s=%q, it selects %q", k, d.Spec.Template.Labels[k], v)
		}
	}
}
