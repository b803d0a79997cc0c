// Live updates: the server sends the sections of the page that have changed, and each is made like what was sent, changing no more than what differs, so
// that focus, selections and what is being typed stay. Without this script the page shows the moment at which it was loaded.
(() => {
  'use strict';
  const address = document.body.dataset.events;
  if (!address) return;

  // ---- times: the server's clock, as far as this one is off it

  let ahead = Date.now() - Date.parse(document.body.dataset.now);
  const local = new Intl.DateTimeFormat(undefined, { hour: '2-digit', minute: '2-digit', second: '2-digit', hour12: false });
  const full = new Intl.DateTimeFormat(undefined, { dateStyle: 'medium', timeStyle: 'long' });
  function ago(ms) {
    const s = Math.max(0, Math.floor(ms / 1000));
    if (s < 1) return 'now';
    if (s < 60) return s + ' s ago';
    if (s < 3600) return Math.floor(s / 60) + ' min ago';
    if (s < 172800) return Math.floor(s / 3600) + ' h ago';
    return Math.floor(s / 86400) + ' days ago';
  }
  function tell() {
    for (const t of document.querySelectorAll('time')) {
      const at = Date.parse(t.dateTime);
      if (Number.isNaN(at)) continue;
      const text = t.className === 'ago' ? ago(Date.now() - ahead - at) : local.format(at);
      if (t.textContent !== text) t.textContent = text;
      if (t.dataset.told !== t.dateTime) {
        t.dataset.told = t.dateTime;
        t.title = full.format(at);
      }
    }
  }
  tell();
  setInterval(tell, 1000);

  // ---- sections

  const key = (n) => (n.nodeType === 1 ? n.dataset.key || n.id || '' : '');
  const alike = (a, b) => a.nodeType === b.nodeType && a.nodeName === b.nodeName && key(a) === key(b);
  function liken(a, b) {
    if (a.nodeType !== 1) {
      if (a.nodeValue !== b.nodeValue) a.nodeValue = b.nodeValue;
      return;
    }
    if (a.id === 'stream') return; // ours
    if (a.nodeName === 'TIME' && a.dateTime === b.dateTime) return; // its text is ours
    for (const { name, value } of b.attributes) if (a.getAttribute(name) !== value) a.setAttribute(name, value);
    for (const { name } of [...a.attributes]) if (!b.hasAttribute(name) && name !== 'title' && name !== 'data-told') a.removeAttribute(name);
    children(a, b);
  }
  function children(from, to) {
    let a = from.firstChild;
    for (let b = to.firstChild; b; b = b.nextSibling) {
      if (a && alike(a, b)) {
        liken(a, b);
        a = a.nextSibling;
        continue;
      }
      let found = null;
      if (key(b)) for (found = a; found && !alike(found, b); ) found = found.nextSibling;
      if (found) {
        from.insertBefore(found, a);
        liken(found, b);
      } else from.insertBefore(document.importNode(b, true), a);
    }
    while (a) {
      const next = a.nextSibling;
      a.remove();
      a = next;
    }
  }
  function show(id, html) {
    const section = document.getElementById(id);
    if (!section) return;
    const had = document.activeElement;
    const within = had && section.contains(had);
    children(section, new DOMParser().parseFromString(html, 'text/html').body);
    if (within && document.activeElement !== had) {
      // What had the focus was moved, or is gone: who uses the keyboard is not sent back to the top.
      if (had.isConnected) had.focus({ preventScroll: true });
      else (section.querySelector('[tabindex="-1"]') || document.getElementById('main')).focus({ preventScroll: true });
    }
    tell();
  }

  // ---- the stream

  let source = null;
  let heard = Date.now();
  let lost = null; // since when
  let retry = 0;
  let hidden = 0;
  function state() {
    const p = document.getElementById('stream');
    if (!p) return;
    p.hidden = !lost;
    const text = lost ? 'no live updates since ' + local.format(lost) + (retry ? ': trying again' : '') : '';
    if (p.textContent !== text) p.textContent = text;
    document.body.classList.toggle('cut', !!lost);
  }
  function open() {
    if (source) source.close();
    source = new EventSource(address);
    const alive = () => {
      heard = Date.now();
      if (lost) {
        lost = null;
        retry = 0;
        state();
      }
    };
    source.addEventListener('section', (e) => {
      alive();
      const end = e.data.indexOf('\n');
      show(end < 0 ? e.data : e.data.slice(0, end), end < 0 ? '' : e.data.slice(end + 1));
    });
    source.addEventListener('beat', alive);
    source.addEventListener('error', () => {
      lost = lost || new Date();
      state();
      if (source.readyState === EventSource.CLOSED && !retry) {
        retry = setTimeout(() => { retry = 0; open(); }, 5000 + Math.random() * 5000); // refused: too many viewers
        state();
      }
    });
  }
  function close() {
    if (source) source.close();
    source = null;
    clearTimeout(retry);
    retry = 0;
  }
  setInterval(() => {
    if (source && !document.hidden && Date.now() - heard > 40000) {
      lost = lost || new Date(heard);
      state();
      heard = Date.now();
      open(); // a connection that says nothing any more
    }
  }, 5000);
  // A page that nobody sees costs nobody anything.
  document.addEventListener('visibilitychange', () => {
    clearTimeout(hidden);
    if (document.hidden) hidden = setTimeout(close, 30000);
    else if (!source) open();
  });
  addEventListener('pagehide', close);
  addEventListener('pageshow', (e) => { if (e.persisted && !source) open(); });
  open();
})();
