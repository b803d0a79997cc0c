package browser

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"maps"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/chromedp/cdproto/accessibility"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

// A member that is killed is late, then gone, and its share is the others', on a page that nobody has touched.
func TestKill(t *testing.T) {
	visit(t)
	do(t, chromedp.Focus("#topic"), chromedp.SendKeys("#topic", "half a quest"))
	eval[bool](t, "window.untouched = true")
	members["web-4"].end(syscall.SIGKILL)
	until(t, "it is shown as late", `[...document.querySelectorAll("#members tr.late")].some(r => r.textContent.includes("web-4"))`)
	shows(t, "timeline", "web-4 expired: its lease ran out unheard")
	until(t, "its share is the others'", `document.querySelectorAll("#shares li").length === 3 && !document.querySelector("#members").textContent.includes("web-4")`)
	if got := eval[[]any](t, `[window.untouched, document.activeElement.id, document.getElementById("topic").value]`); fmt.Sprint(got) != "[true topic half a quest]" {
		t.Errorf("the page was loaded anew, or what was being typed is lost: %v", got)
	}
	delete(members, "web-4")
	if err := join("web-5", "no"); err != nil {
		t.Fatal(err)
	}
	shows(t, "timeline", "web-5 joined")
	visit(t)
}

// A vote, from the question to its verdict on the page.
func TestVote(t *testing.T) {
	visit(t)
	do(t, chromedp.SendKeys("#topic", "shall <we>?"), chromedp.SetValue("#seconds", "20"), chromedp.Click(`form[action="/vote"] button`), chromedp.WaitVisible("form.question"))
	if got := eval[string](t, `document.querySelector("form.question").innerText`); !strings.Contains(got, "“shall <we>?”") || !strings.Contains(got, "4 members of the group workers that vote; yes needs more than half of them") {
		t.Errorf("what is to be confirmed: %s", got)
	}
	do(t, chromedp.Click("form.question button"))
	shows(t, "notice", "vote on “shall <we>?”: yes: 3 yes")
	shows(t, "ballots", "yes shall <we>?")
	if got := eval[int](t, `document.querySelectorAll("#ballots svg.tally").length`); got < 1 {
		t.Errorf("%d tallies drawn", got)
	}
}

// By the keyboard alone: every control is reached, in the order in which it stands on the page, and shows that it is; then the leader is stepped down.
func TestKeyboard(t *testing.T) {
	visit(t)
	const controls = `[...document.querySelectorAll("a[href], button, input:not([type=hidden]), select, textarea, summary, [tabindex='0']")]`
	want := eval[int](t, "(window.stops = "+controls+").length")
	var got []string
	for range want {
		do(t, chromedp.KeyEvent(kb.Tab))
		at := eval[[]string](t, `(e => [String(window.stops.indexOf(e)), getComputedStyle(e).outlineStyle, e.innerText || e.id, String(e.getBoundingClientRect().top >= -1 && e.getBoundingClientRect().bottom <= innerHeight + 1)])(document.activeElement)`)
		if at[1] == "none" {
			t.Errorf("%q does not show that it has the focus", at[2])
		}
		if at[3] != "true" {
			t.Errorf("%q has the focus and is not in sight", at[2])
		}
		got = append(got, at[0])
	}
	var order []string
	for i := range want {
		order = append(order, fmt.Sprint(i))
	}
	if !slices.Equal(got, order) || want < 15 {
		t.Errorf("Tab went %v, there are %d controls", got, want)
	}

	before := eval[string](t, `document.querySelector("#summary .leader b").textContent`)
	next := eval[string](t, `document.querySelector("#to option:nth-child(2)").value`)
	do(t, chromedp.Focus("#to"), chromedp.KeyEvent(next), chromedp.KeyEvent(kb.Tab), chromedp.KeyEvent(kb.Enter), chromedp.WaitVisible("form.question"))
	if got := eval[string](t, `document.querySelector("form.question").innerText`); !strings.Contains(got, "Have "+before+" step down?") || !strings.Contains(got, next+" leads then.") {
		t.Errorf("what is to be confirmed: %s", got)
	}
	for range 10 { // from the top of the page to the button
		do(t, chromedp.KeyEvent(kb.Tab))
		if eval[string](t, "document.activeElement.nodeName") == "BUTTON" {
			break
		}
	}
	do(t, chromedp.KeyEvent(kb.Enter))
	shows(t, "notice", "step-down of "+before+": "+next+" leads now, token ")
	shows(t, "summary", "★ "+next)
	shows(t, "timeline", before+" stepped down", next+" leads, token ")
}

// Without JavaScript the page is read and acted on all the same; it says that it does not follow.
func TestNoScript(t *testing.T) {
	visit(t)
	script := func(off bool) {
		do(t, chromedp.Func(func(ctx context.Context, _ *chromedp.Target) error {
			_, err := chromedp.Call(ctx, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: off})
			return err
		}))
	}
	script(true)
	defer script(false)
	do(t, chromedp.Navigate(url+"/?group=workers"), chromedp.WaitVisible("footer noscript p"))
	shows(t, "members", "web-5", "UTC")
	do(t, chromedp.Click(`tr[data-key^="web-5 "] a.button`), chromedp.WaitVisible("form.question"), chromedp.Click("form.question button"))
	// What takes longer than a moment is under way at first; who cannot follow looks again.
	for {
		shows(t, "notice", "eviction of web-5: ")
		said := eval[string](t, `document.getElementById("notice").textContent`)
		if !strings.Contains(said, "under way") {
			break
		}
		do(t, chromedp.Reload())
	}
	shows(t, "notice", "eviction of web-5: web-5 is no member any more.")
	members["web-5"].end(syscall.SIGKILL)
	delete(members, "web-5")
}

// What assistive technology is told, in the browser's own tree: each control, chart, region and table has a role and a name.
func TestNames(t *testing.T) {
	visit(t)
	for _, path := range []string{"/?group=workers", "/", "/step-down?group=workers", "/nothing"} {
		if path != "/?group=workers" {
			do(t, chromedp.Navigate(url+path))
		}
		ctx, cancel := context.WithTimeout(tab, patience)
		tree, err := chromedp.Call(ctx, accessibility.GetFullAXTree, accessibility.GetFullAXTreeParams{})
		cancel()
		if err != nil {
			t.Fatal(err)
		}
		text := func(v *accessibility.Value) string {
			if v == nil {
				return ""
			}
			var s string
			_ = json.Unmarshal(v.Value, &s) // what is no text has no name
			return s
		}
		found := map[string][]string{}
		for _, n := range tree.Nodes {
			if n.Ignored {
				continue
			}
			role, name := text(n.Role), text(n.Name)
			switch role {
			case "link", "button", "textbox", "combobox", "spinbutton", "searchbox", "image", "img", "status", "log", "table", "navigation", "region", "heading", "form", "list", "columnheader", "rowheader", "option", "group", "RootWebArea":
				found[role] = append(found[role], name)
				// A list is told by its items, a form by what is in it, a status by what it says.
				if name == "" && role != "list" && role != "form" {
					t.Errorf("%s: a %s without a name", path, role)
				}
			}
		}
		seen := eval[int](t, `document.querySelectorAll("a[href], button, input:not([type=hidden]), select").length`)
		controls := 0
		for _, role := range []string{"link", "button", "textbox", "combobox", "spinbutton", "searchbox"} {
			controls += len(found[role])
		}
		if controls != seen {
			t.Errorf("%s: %d controls in the page, %d in the tree: %v", path, seen, controls, found)
		}
		if path != "/?group=workers" {
			continue
		}
		for role, names := range map[string][]string{
			"navigation":   {"Groups"},
			"link":         {"Skip to the group", "Evict web-1 …", "15 minutes"},
			"textbox":      {"Question"},
			"combobox":     {"Yes needs", "Next leader"},
			"spinbutton":   {"Seconds at most"},
			"button":       {"Vote…", "Step down…"},
			"status":       {"State of the connection", "State of the group", "Result of what was asked"},
			"log":          {"What has happened, newest first"},
			"region":       {"Shares of the work", "Members", "Time line", "Ballots", "Act"},
			"table":        {"Members"},
			"columnheader": {"Member", "State", "Share", "Joined", "Where and what", "Actions"},
			"rowheader":    {"web-1", "web-2"},
			"heading":      {"quorate", "Members"},
			"image":        {"Time line of the last 5 minutes: ", " yes, "},
			"list":         {"Who holds which share"},
		} {
			for _, name := range names {
				if !slices.ContainsFunc(slices.Concat(found[role], found[map[string]string{"image": "img"}[role]]), func(n string) bool { return strings.Contains(n, name) }) {
					t.Errorf("no %s is called %q: %q", role, name, found[role])
				}
			}
		}
	}
}

// contrasts computes the contrast of each text on the page with what is behind it, and returns those below 4.5.
const contrasts = `(() => {
  const parse = (s) => { const m = s.match(/rgba?\(([^)]+)\)/); if (!m) return null; const p = m[1].split(/[ ,\/]+/).map(Number); return [p[0], p[1], p[2], p.length > 3 ? p[3] : 1] };
  const over = (a, b) => [0, 1, 2].map(i => a[i] * a[3] + b[i] * (1 - a[3])).concat(1);
  const lum = (c) => { const f = (v) => { v /= 255; return v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4 }; return 0.2126 * f(c[0]) + 0.7152 * f(c[1]) + 0.0722 * f(c[2]) };
  const ratio = (a, b) => { const [x, y] = [lum(a), lum(b)].sort((p, q) => q - p); return (x + 0.05) / (y + 0.05) };
  const behind = (e) => {
    const layers = [];
    for (let n = e; n; n = n.parentElement) {
      const s = getComputedStyle(n);
      if (n.ownerSVGElement) { const r = n.parentElement.querySelector(':scope > rect'); if (n.nodeName === 'text' && r && n.parentElement.ownerSVGElement) { layers.push([parse(getComputedStyle(r).fill)]); break } continue }
      const drawn = [...s.backgroundImage.matchAll(/rgba?\([^)]+\)/g)].map(m => parse(m[0]));
      if (drawn.length) { layers.push(drawn); break }
      const c = parse(s.backgroundColor);
      if (c && c[3] > 0) { layers.push([c]); if (c[3] === 1) break }
    }
    let colours = [[255, 255, 255, 1]];
    for (const layer of layers.reverse()) colours = layer.flatMap(l => colours.map(c => over(l, c)));
    return colours;
  };
  const bad = [], done = new Set();
  let n = 0;
  const look = (e, what) => {
    if (done.has(e)) return;
    done.add(e);
    const s = getComputedStyle(e), r = e.getBoundingClientRect();
    if (s.clipPath !== 'none' || e.closest('.hear') || r.width < 1 || s.visibility === 'hidden' || e.closest('thead') && getComputedStyle(e.closest('thead')).clipPath !== 'none') return;
    n++;
    const c = parse(e.ownerSVGElement ? s.fill : s.color);
    for (const b of behind(e)) { const v = ratio(over(c, b), b); if (v < 4.5) bad.push(v.toFixed(2) + ' ' + e.nodeName + '.' + (e.className.baseVal ?? e.className) + ' "' + what.slice(0, 30) + '" ' + c + ' on ' + b) }
  };
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let t; (t = walk.nextNode()); ) if (t.nodeValue.trim() && !['OPTION', 'SCRIPT', 'NOSCRIPT', 'TITLE', 'title'].includes(t.parentElement.nodeName)) look(t.parentElement, t.nodeValue.trim());
  for (const e of document.querySelectorAll('input:not([type=hidden]), select, button')) look(e, e.value);
  return { bad, n };
})()`

// every adds to the page all that the style sheet can draw, whatever is on it now.
const every = `(() => {
  const add = (html) => { const d = document.createElement('div'); d.innerHTML = html; document.querySelector('main').append(d) };
  add(['good', 'busy', 'bad', 'idle', 'lead'].map(k => '<span class="badge ' + k + '">' + k + '</span>').join(' '));
  add('<section>' + ['good', 'busy', 'bad', 'idle', 'lead'].map(k => '<span class="badge ' + k + '">' + k + '</span> <span class="star">★</span><span class="quiet">quiet</span><p class="empty">empty</p>').join(' ') + '</section>');
  add(['', 'running', 'failed'].map(k => '<p class="notice ' + k + '">notice ' + k + '</p>').join(''));
  add(['live', 'waiting', 'away', 'silent', 'lost'].map(k => '<p class="state ' + k + '">state ' + k + '</p>').join('') + '<p class="stream">stream</p>');
  const kinds = [...Array(8).keys()].flatMap(i => ['alive', 'lead', 'late', 'gone', 'pending', 'unknown'].map(k => 'c' + i + ' ' + k));
  add('<ol class="shares">' + kinds.map(k => '<li class="' + k + '"><span class="index">0</span><span class="owner">x</span> <span class="flag">late</span></li>').join('') + '</ol>');
  add('<table class="members"><tbody><tr class="late"><th class="id"><span class="name">late</span></th></tr></tbody></table>');
  add('<div class="chart"><svg width="100%" height="20">' + kinds.map(k => '<svg width="9%" height="20"><rect class="term ' + k + '" width="100%" height="20"/><text y="14">t</text></svg>').join('') +
    ['g0', 'g1'].map(k => '<svg width="9%" height="20"><rect class="gen ' + k + '" width="100%" height="20"/><text y="14">t</text></svg>').join('') + '</svg></div>');
  return 0;
})()`

// Every text can be read, in both schemes, on a desk and on a telephone.
func TestContrast(t *testing.T) {
	type result struct {
		Bad []string
		N   int
	}
	defer media(t, "light", 1280)
	for _, scheme := range []string{"light", "dark"} {
		for _, width := range []int64{1280, 390} {
			media(t, scheme, width)
			visit(t)
			r := eval[result](t, contrasts)
			eval[int](t, every)
			all := eval[result](t, contrasts)
			if len(r.Bad) > 0 || len(all.Bad) > 0 || r.N < 50 || all.N < r.N+100 {
				t.Errorf("%s, %d wide: of %d and %d texts these have less than 4.5:\n%s", scheme, width, r.N, all.N, strings.Join(slices.Concat(r.Bad, all.Bad), "\n"))
			}
			for _, path := range []string{"/step-down?group=workers", "/nothing"} {
				do(t, chromedp.Navigate(url+path))
				if r := eval[result](t, contrasts); len(r.Bad) > 0 || r.N < 4 {
					t.Errorf("%s, %d wide, %s: %+v", scheme, width, path, r)
				}
			}
		}
		back := eval[string](t, `getComputedStyle(document.body).backgroundColor`)
		if dark := strings.HasPrefix(back, "rgb(20,"); dark != (scheme == "dark") {
			t.Errorf("%s: the page is %s", scheme, back)
		}
	}
}

// On a telephone nothing has to be scrolled sideways, however long names and texts are.
func TestNarrow(t *testing.T) {
	if err := join(strings.Repeat("a-long-id-", 6)+"end", "abstain", "--meta", "note="+strings.Repeat("unbroken", 60)); err != nil {
		t.Fatal(err)
	}
	defer media(t, "light", 1280)
	media(t, "light", 390)
	visit(t)
	do(t, chromedp.Navigate(url+"/vote?group=workers&kind=consensus&seconds=3&topic="+strings.Repeat("unbroken", 60)))
	do(t, chromedp.Click("form.question button"))
	shows(t, "ballots", "unbrokenunbroken")
	for _, width := range []int64{390, 320} {
		media(t, "light", width)
		for _, path := range []string{"/?group=workers", "/?group=workers&span=1h", "/", "/vote?group=workers&kind=consensus&topic=" + strings.Repeat("x", 500), "/evict?group=workers&member=web-1&incarnation=1"} {
			do(t, chromedp.Navigate(url+path))
			<-time.After(300 * time.Millisecond) // the first update
			wide := eval[[]string](t, `[...document.querySelectorAll("body *")].filter(e => !e.closest(".hear, .skip, svg svg") && getComputedStyle(e).clipPath === "none" && e.getBoundingClientRect().right > innerWidth + 1).map(e => e.nodeName + "." + (e.className.baseVal ?? e.className))`)
			if got := eval[int64](t, "document.scrollingElement.scrollWidth"); got > width || len(wide) > 0 {
				t.Errorf("%s: %d wide on %d: %v", path, got, width, wide)
			}
		}
	}
}

// Draws the picture in docs/web.md, if it is asked to: a group in which something has happened. It takes some minutes, as what is shown does.
func TestPicture(t *testing.T) {
	visit(t)
	shoot := func() []byte {
		drawn, err := chromedp.Run(tab, chromedp.FullScreenshot(100))
		if err != nil || len(drawn) < 10_000 {
			t.Fatalf("no picture: %d bytes, %v", len(drawn), err)
		}
		return drawn
	}
	if !*picture {
		shoot()
		return
	}
	ask := func(topic, kind string) {
		do(t, chromedp.SetValue("#topic", topic), chromedp.SetValue("#kind", kind), chromedp.Click(`form[action="/vote"] button`), chromedp.WaitVisible("form.question"), chromedp.Click("form.question button"))
		shows(t, "ballots", topic)
		visit(t)
	}
	pass := func(d time.Duration) { <-time.After(d) }
	pass(20 * time.Second)
	if err := join("web-5", "no"); err != nil {
		t.Fatal(err)
	}
	pass(25 * time.Second)
	ask("deploy build 1.5.0 tonight?", "majority")
	do(t, chromedp.Click(`form[action="/step-down"] button`), chromedp.WaitVisible("form.question"), chromedp.Click("form.question button"))
	pass(50 * time.Second)
	visit(t)
	ask("switch to the standby database", "consensus")
	leader := eval[string](t, `document.querySelector("#summary .leader b").textContent`)
	members[leader].end(syscall.SIGKILL)
	delete(members, leader)
	shows(t, "timeline", leader+" expired")
	pass(40 * time.Second)
	if err := join(leader, "yes"); err != nil {
		t.Fatal(err)
	}
	pass(50 * time.Second)
	media(t, "light", 1080)
	visit(t)
	gone := "web-3"
	if eval[string](t, `document.querySelector("#summary .leader b").textContent`) == gone {
		gone = "web-2"
	}
	members[gone].end(syscall.SIGKILL)
	until(t, "it is late", `document.querySelector("#members tr.late")?.textContent.includes("2 s ago")`)
	if err := os.WriteFile("../../../docs/web.png", small(t, shoot()), 0o644); err != nil {
		t.Fatal(err)
	}
}

// small is a picture with the 256 colours that it has most of, which is a third of its size.
func small(t *testing.T, picture []byte) []byte {
	t.Helper()
	m, err := png.Decode(bytes.NewReader(picture))
	if err != nil {
		t.Fatal(err)
	}
	r, at := m.Bounds(), func(x, y int) color.RGBA { return color.RGBAModel.Convert(m.At(x, y)).(color.RGBA) }
	count := map[color.RGBA]int{}
	for y := r.Min.Y; y < r.Max.Y; y++ {
		for x := r.Min.X; x < r.Max.X; x++ {
			count[at(x, y)]++
		}
	}
	var palette color.Palette
	for _, c := range slices.SortedFunc(maps.Keys(count), func(a, b color.RGBA) int { return cmp.Compare(count[b], count[a]) }) {
		near := slices.ContainsFunc(palette, func(o color.Color) bool {
			p := o.(color.RGBA)
			return max(p.R, c.R)-min(p.R, c.R) < 5 && max(p.G, c.G)-min(p.G, c.G) < 5 && max(p.B, c.B)-min(p.B, c.B) < 5
		})
		if !near && len(palette) < 256 {
			palette = append(palette, c)
		}
	}
	out := image.NewPaletted(r, palette)
	index := map[color.RGBA]uint8{}
	for c := range count {
		index[c] = uint8(palette.Index(c))
	}
	for y := r.Min.Y; y < r.Max.Y; y++ {
		for x := r.Min.X; x < r.Max.X; x++ {
			out.SetColorIndex(x, y, index[at(x, y)])
		}
	}
	var b bytes.Buffer
	if err := (&png.Encoder{CompressionLevel: png.BestCompression}).Encode(&b, out); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}
