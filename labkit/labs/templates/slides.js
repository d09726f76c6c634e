"use strict";
(() => {
  const root = document.documentElement;
  const all = (query, from = document) => [...from.querySelectorAll(query)];
  const one = (id) => document.getElementById(id);
  const slides = all("#slides > section > section");
  const title = (slide) => (all("h1, h2, h3", slide)[0] || { textContent: "" }).textContent.trim();
  const notes = (slide) => all("aside.notes", slide).map((note) => note.innerHTML).join("");
  const about = document.title.replace(/ · slides$/, "");
  let at = 0;
  let speaker = null;
  const began = Date.now();

  // The window with the slides tells the speaker's window; a page in a file may not keep anything else.
  const remembered = (name, value) => {
    try { return value === undefined ? localStorage.getItem(name) : localStorage.setItem(name, value); } catch { return null; }
  };
  const dress = (theme) => {
    root.dataset.theme = theme;
    if (speaker && !speaker.closed) speaker.document.documentElement.dataset.theme = theme;
  };
  dress(remembered("labkit-slides-theme") || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light"));
  root.classList.add("js");

  function fit(slide) {
    slide.style.fontSize = "";
    const full = parseFloat(getComputedStyle(slide).fontSize);
    for (let share = 1; share >= 0.6 && slide.scrollHeight > slide.clientHeight + 1; share -= 0.05) {
      slide.style.fontSize = `${full * share}px`;
    }
    slide.tabIndex = 0;  // a keyboard scrolls what has the focus
  }

  function show(number, shown = 0) {
    at = Math.max(0, Math.min(slides.length - 1, number));
    slides.forEach((slide, n) => slide.classList.toggle("now", n === at));
    const slide = slides[at];
    all(".fragment", slide).forEach((part, n) => part.classList.toggle("shown", n < shown));
    fit(slide);
    slide.scrollTop = 0;
    slide.focus({ preventScroll: true });
    one("place").textContent = `${at + 1} / ${slides.length}`;
    const above = title(slide.parentElement);
    one("about").textContent = above && above !== about ? `${about} — ${above}` : about;
    one("progress").firstElementChild.style.width = `${(100 * (at + 1)) / slides.length}%`;
    one("panel").innerHTML = notes(slide) || "<p>No notes for this slide.</p>";
    history.replaceState(null, "", `#${at + 1}`);
    tell();
  }

  const hidden = () => all(".fragment:not(.shown)", slides[at]);
  const next = () => {
    const parts = hidden();
    if (parts.length) { parts[0].classList.add("shown"); tell(); }
    else if (at < slides.length - 1) show(at + 1);
  };
  const previous = () => {
    const parts = all(".fragment.shown", slides[at]);
    if (parts.length) { parts.at(-1).classList.remove("shown"); tell(); }
    else if (at > 0) show(at - 1, Infinity);
  };
  function section(step) {
    const heads = slides.map((slide, n) => (slide.parentElement.firstElementChild === slide ? n : -1)).filter((n) => n >= 0);
    show(step > 0 ? heads.find((n) => n > at) ?? slides.length - 1 : heads.filter((n) => n < at).at(-1) ?? 0);
  }
  function vertical(step) {
    const slide = slides[at];
    const room = step > 0 ? slide.scrollHeight - slide.clientHeight - slide.scrollTop : slide.scrollTop;
    if (room > 2) slide.scrollBy(0, step * slide.clientHeight * 0.6); else section(step);
  }

  function outline() {
    const list = one("list");
    list.replaceChildren(...slides.flatMap((slide, n) => {
      if (!title(slide)) return [];
      const link = document.createElement("a");
      link.href = `#${n + 1}`;
      link.textContent = `${n + 1}  ${title(slide)}`;
      link.addEventListener("click", (event) => { event.preventDefault(); list.close(); show(n); });
      return [link];
    }));
    const links = all("a", list);
    const current = links.filter((link) => Number(link.hash.slice(1)) <= at + 1).at(-1);
    if (current) current.setAttribute("aria-current", "true");
    list.showModal();
    (current || links[0])?.focus();
  }

  function tell() {
    if (!speaker || speaker.closed) return;
    const page = speaker.document;
    page.getElementById("now").textContent = `${at + 1} / ${slides.length}  ${title(slides[at])}`;
    page.getElementById("notes").innerHTML = notes(slides[at]) || "<p>No notes for this slide.</p>";
    const coming = slides[at + 1];
    const words = coming ? title(coming) || coming.textContent.trim().split(/\s+/).slice(0, 16).join(" ") + " …" : "the end";
    page.getElementById("next").textContent = hidden().length ? "Next: another part of this slide" : `Next: ${words}`;
  }

  function open() {
    speaker = window.open("", "labkit-speaker", "width=760,height=640");
    if (!speaker) { one("panel").hidden = false; fit(slides[at]); return; }  // the browser lets no window open
    const page = speaker.document;
    page.title = `Speaker · ${document.title}`;
    page.head.innerHTML = "";
    all("style").forEach((style) => page.head.append(page.importNode(style, true)));
    page.body.innerHTML = '<div style="padding:1rem 1.5rem;font-size:18px"><div style="display:flex;justify-content:space-between">'
      + '<strong id="now"></strong><span id="clock"></span></div><hr><div id="notes"></div><hr><div id="next"></div></div>';
    dress(root.dataset.theme);
    speaker.onkeydown = key;
    const tick = () => {
      if (speaker.closed) { clearInterval(timer); return; }
      const s = Math.round((Date.now() - began) / 1000);
      page.getElementById("clock").textContent = `${Math.floor(s / 60)}:${String(s % 60).padStart(2, "0")}`;
    };
    const timer = setInterval(tick, 1000);
    tick();
    tell();
  }

  const acts = {
    next, previous, outline, speaker: open,
    notes: () => { one("panel").hidden = !one("panel").hidden; fit(slides[at]); },
    theme: () => {
      dress(root.dataset.theme === "dark" ? "light" : "dark");
      remembered("labkit-slides-theme", root.dataset.theme);
    },
    keys: () => one("help").showModal(),
    full: () => (document.fullscreenElement ? document.exitFullscreen() : root.requestFullscreen()),
    first: () => show(0), last: () => show(slides.length - 1), up: () => vertical(-1), down: () => vertical(1),
  };
  const keys = {
    ArrowRight: "next", " ": "next", PageDown: "next", ArrowLeft: "previous", PageUp: "previous", ArrowUp: "up", ArrowDown: "down",
    Home: "first", End: "last", o: "outline", s: "speaker", n: "notes", d: "theme", f: "full", "?": "keys", h: "keys",
  };
  function key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
    const onButton = event.target.closest?.("button, a, summary") && (event.key === " " || event.key === "Enter");
    const name = keys[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (!name || onButton) return;
    event.preventDefault();
    acts[event.key === " " && event.shiftKey ? "previous" : name]();
  }
  document.addEventListener("keydown", key);
  one("bar").addEventListener("click", (event) => acts[event.target.dataset.act]?.());
  let touch = 0;
  document.addEventListener("touchstart", (event) => { touch = event.touches[0].clientX; }, { passive: true });
  document.addEventListener("touchend", (event) => {
    const moved = event.changedTouches[0].clientX - touch;
    if (Math.abs(moved) > 60) (moved < 0 ? next : previous)();
  }, { passive: true });
  const asked = () => (Number(location.hash.slice(1)) || 1) - 1;
  addEventListener("hashchange", () => { if (asked() !== at) show(asked()); });
  addEventListener("resize", () => fit(slides[at]));
  addEventListener("load", () => fit(slides[at]));
  show(asked());
})();
