package testenv_test

import (
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/quorate/quorate/testenv"
)

func TestRealServerKeepsItsDataAndPort(t *testing.T) {
	s := testenv.Real(t)
	back := make(chan struct{}, 1)
	nc := s.Connect("a", nats.ReconnectHandler(func(*nats.Conn) { back <- struct{}{} }))
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "S", Subjects: []string{"s"}}); err != nil {
		t.Fatal(err)
	}
	if _, err := js.Publish(t.Context(), "s", []byte("kept")); err != nil {
		t.Fatal(err)
	}
	url := s.URL()
	s.Stop()
	if err := s.Start(); err != nil {
		t.Fatal(err)
	}
	if s.URL() != url {
		t.Fatalf("listens on %s after a restart, before on %s", s.URL(), url)
	}
	<-back
	st, err := js.Stream(t.Context(), "S")
	if err != nil {
		t.Fatal(err)
	}
	if m, err := st.GetMsg(t.Context(), 1); err != nil || string(m.Data) != "kept" {
		t.Fatalf("message after a restart: %+v, %v", m, err)
	}

	over, err := nats.Connect("", nats.InProcessServer(testenv.NewLink(s)))
	if err != nil {
		t.Fatal(err)
	}
	defer over.Close()
	if err := over.Flush(); err != nil {
		t.Fatal(err)
	}
}
