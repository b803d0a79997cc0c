package leader

// Untrack leaves closing the elector to whoever made it: closing the namespace does not any more. For quorate's own packages,
// where a member leaves in an order of its own.
func (e *Elector) Untrack() { e.forget() }
