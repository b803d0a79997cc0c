package partition_test

import (
	"fmt"
	"hash/fnv"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/cespare/xxhash/v2"

	"github.com/quorate/quorate/partition"
)

// TestProtocolVectors checks the test vectors of the map of keys to indexes that other languages are written against.
func TestProtocolVectors(t *testing.T) {
	doc, err := os.ReadFile("../docs/protocol.md")
	if err != nil {
		t.Fatal(err)
	}
	_, text, ok := strings.Cut(string(doc), "| key | xxh64 | 1 | 2 | 3 | 5 | 10 | 100 | 1000 |\n")
	if !ok {
		t.Fatal("docs/protocol.md has no table of test vectors")
	}
	totals := []int{1, 2, 3, 5, 10, 100, 1000}
	rows := 0
	for line := range strings.Lines(text) {
		cells := strings.Split(strings.Trim(line, "| \n"), " | ")
		if len(cells) != 2+len(totals) {
			if strings.HasPrefix(line, "|--") {
				continue
			}
			break
		}
		rows++
		key := strings.Trim(cells[0], "`")
		if key == "(empty)" {
			key = ""
		}
		if got := fmt.Sprintf("%016x", xxhash.Sum64String(key)); got != strings.Trim(cells[1], "`") {
			t.Errorf("xxh64(%q): got %s, want %s", key, got, cells[1])
		}
		for i, n := range totals {
			if got := strconv.Itoa(partition.Index(key, n)); got != cells[2+i] {
				t.Errorf("index of %q among %d: got %s, want %s", key, n, got, cells[2+i])
			}
		}
	}
	if rows < 5 {
		t.Errorf("%d test vectors found", rows)
	}
}

// TestProtocolBuckets checks those of the maps of keys to buckets; FNV-1a against the standard library's too.
func TestProtocolBuckets(t *testing.T) {
	doc, err := os.ReadFile("../docs/protocol.md")
	if err != nil {
		t.Fatal(err)
	}
	_, text, ok := strings.Cut(string(doc), "| key | fnv1a32 | xxh64 mod 1 | 3 | 10 | 64 | 256 | 1000 | fnv1a32 mod 1 | 3 | 10 | 64 | 256 | 1000 |\n")
	if !ok {
		t.Fatal("docs/protocol.md has no table of test vectors for buckets")
	}
	rows, counts := 0, []int{1, 3, 10, 64, 256, 1000}
	for line := range strings.Lines(text) {
		cells := strings.Split(strings.Trim(line, "| \n"), " | ")
		if len(cells) != 2+2*len(counts) {
			if strings.HasPrefix(line, "|--") {
				continue
			}
			break
		}
		rows++
		key := strings.Trim(cells[0], "`")
		if key == "(empty)" {
			key = ""
		}
		h := fnv.New32a()
		_, _ = h.Write([]byte(key))
		if got := fmt.Sprintf("%08x", h.Sum32()); got != strings.Trim(cells[1], "`") {
			t.Errorf("fnv1a32(%q): got %s, want %s", key, got, cells[1])
		}
		for i, n := range counts {
			for j, hash := range []string{partition.HashXXH64, partition.HashNATS} {
				if got := strconv.Itoa(partition.BucketOf(key, n, hash)); got != cells[2+i+j*len(counts)] {
					t.Errorf("bucket of %q by %s among %d: got %s, want %s", key, hash, n, got, cells[2+i+j*len(counts)])
				}
			}
		}
	}
	if rows < 5 {
		t.Errorf("%d test vectors found", rows)
	}
	if partition.BucketOf("a", 0, "") != -1 || partition.BucketOf("a", 4, "md5") != -1 {
		t.Error("a key has a bucket where there is none")
	}
}
