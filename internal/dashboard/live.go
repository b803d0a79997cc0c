package dashboard

import (
	"bytes"
	"net/http"
	"time"
)

// Timing of live updates.
const (
	pause     = 200 * time.Millisecond // between two updates of a viewer, however much changes
	heartbeat = 15 * time.Second       // a word to viewers when nothing changes, so that proxies and they know that it lives
	patience  = 10 * time.Second       // a viewer that does not take what it is sent for so long is let go
)

// serveEvents sends a viewer each section of the page that has changed, as server-sent events: an event "section" whose first line of data is the section's
// name, the rest its HTML. All viewers of the same have it drawn once.
func (d *Dashboard) serveEvents(w http.ResponseWriter, r *http.Request) {
	if site := r.Header.Get("Sec-Fetch-Site"); site != "" && site != "same-origin" {
		http.Error(w, "that is for this page only", http.StatusForbidden) // it would take a seat from those who may see
		return
	}
	select {
	case d.seats <- struct{}{}:
		defer func() { <-d.seats }()
	default:
		w.Header().Set("Retry-After", "15")
		http.Error(w, "too many viewers of live updates: the page can be loaded all the same", http.StatusServiceUnavailable)
		return
	}
	q := queryOf(r)
	chosen := q.Group
	if chosen == "" {
		chosen = d.hub.single()
	}
	defer d.hub.look(chosen)()
	c := http.NewResponseController(w)
	_ = c.SetReadDeadline(time.Time{}) // nothing more is read
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("X-Accel-Buffering", "no") // a proxy that gathers would keep it all
	w.WriteHeader(http.StatusOK)

	sent := map[string]string{}
	said := time.Time{}
	beat := time.NewTicker(time.Second) // the time line moves on
	defer beat.Stop()
	for {
		d.hub.mu.Lock()
		changed := d.hub.changed
		d.hub.mu.Unlock()
		acted := d.acts.changed()
		pic := d.live(q, time.Now())
		var b bytes.Buffer
		for _, name := range sections {
			if html := pic.html[name]; html != sent[name] {
				sent[name] = html
				b.WriteString("event: section\ndata: " + name + "\n")
				for line := range bytes.Lines([]byte(html)) {
					b.WriteString("data: ")
					b.Write(bytes.TrimRight(line, "\r\n"))
					b.WriteByte('\n')
				}
				b.WriteByte('\n')
			}
		}
		if b.Len() == 0 && time.Since(said) >= heartbeat {
			b.WriteString("event: beat\ndata:\n\n")
		}
		if b.Len() > 0 {
			said = time.Now()
			_ = c.SetWriteDeadline(said.Add(patience))
			if _, err := w.Write(b.Bytes()); err != nil || c.Flush() != nil {
				return
			}
		}
		select {
		case <-r.Context().Done():
			return
		case <-d.life.Done():
			return
		case <-time.After(pause):
		}
		select {
		case <-r.Context().Done():
			return
		case <-d.life.Done():
			return
		case <-changed:
		case <-acted:
		case <-beat.C:
		}
	}
}

// single is the one group there is, or "".
func (h *hub) single() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.groups) == 1 {
		for name := range h.groups {
			return name
		}
	}
	return ""
}
