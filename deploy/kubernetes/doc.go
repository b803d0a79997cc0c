// Package kubernetes holds manifests that run quorate on Kubernetes; its tests decode them with Kubernetes' own types. It is a module of its own, for
// those are not for everybody who uses quorate.
package kubernetes
