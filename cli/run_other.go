//go:build !unix

package cli

// forward has nothing to hand on here.
func (r *guarded) forward() (stop func()) { return func() {} }
