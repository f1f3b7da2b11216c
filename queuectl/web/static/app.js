// What a page does while it is looked at: it asks for its changes, follows output, counts ages on, and obeys keys.
// Everything works without it, but for that. Text from jobs comes in as text only, never as markup.
"use strict";
(() => {
  const policy = window.trustedTypes
    ? window.trustedTypes.createPolicy("queuectl", { createHTML: (text) => text })
    : { createHTML: (text) => text };
  const main = document.getElementById("main");
  const base = document.body.dataset.base;
  const title = document.title;
  const LONGEST_LOG = 1 << 19; // characters; one line of twice as many held the page up for a second
  const FAR_BEHIND = 1 << 19;
  const PATIENCE = 20000;

  // -- refreshing: the next question comes after the answer, and none while nobody looks

  function parsed(html) {
    const made = new DOMParser().parseFromString(policy.createHTML(html), "text/html");
    return made.body;
  }

  // A machine that slept, or a tunnel that broke, leaves a request that is never answered: it is given up.
  function get(url, headers) {
    const patience = new AbortController();
    setTimeout(() => patience.abort(), PATIENCE);
    return fetch(url, { headers: headers || {}, cache: "no-store", signal: patience.signal });
  }

  const keeps = {
    beforeNodeMorphed(old, fresh) {
      if (old.nodeType !== Node.ELEMENT_NODE) return true;
      if (old.id === "run") return old !== document.activeElement;
      if (old.dataset.keep !== undefined || old.id === "said" || old.id === "problem") return false;
      if (/^(INPUT|SELECT|TEXTAREA)$/.test(old.tagName)) return fresh.tagName !== old.tagName || old.name !== fresh.name || (old.type === "checkbox" && old.value !== fresh.value);
      return true;
    },
    beforeNodeRemoved: (node) => !["said", "problem"].includes(node.id),
    beforeAttributeUpdated: (name) => name !== "open" && name !== "hidden",
  };

  function away(is) {
    document.body.classList.toggle("away", is);
    document.getElementById("away").hidden = !is;
    document.title = is ? `(away) ${title}` : title;
  }

  function every(period, ask) {
    let timer = 0;
    let busy = false;
    const run = async () => {
      clearTimeout(timer);
      if (busy || document.hidden) return;
      busy = true;
      let goOn = true;
      try {
        goOn = await ask();
      } catch {
        away(true);
      }
      busy = false;
      if (goOn !== false) timer = setTimeout(run, period());
      else document.removeEventListener("visibilitychange", run);
    };
    document.addEventListener("visibilitychange", run);
    timer = setTimeout(run, period());
    return run;
  }

  let mark = "";
  async function refresh() {
    const answer = await get(main.dataset.part, mark ? { "If-None-Match": mark } : {});
    if (answer.status === 401) { location.reload(); return false; }
    if (answer.status >= 500) throw new Error("away");
    away(false);
    if (answer.status === 404) { main.dataset.gone = "yes"; location.reload(); return false; }
    if (answer.status !== 200) return true;
    mark = answer.headers.get("ETag") || "";
    window.Idiomorph.morph(main, parsed(await answer.text()).childNodes, { morphStyle: "innerHTML", ignoreActiveValue: true, callbacks: keeps });
    prepare();
    return true;
  }

  // -- ages are the server's, counted on by this clock's differences

  const server = new Map();
  function words(seconds) {
    const whole = Math.max(0, Math.floor(seconds));
    for (const [size, unit, small, below] of [[86400, "d", 3600, "h"], [3600, "h", 60, "m"], [60, "m", 1, "s"]]) {
      if (whole >= size) {
        const rest = Math.floor((whole % size) / small);
        return rest ? `${Math.floor(whole / size)}${unit} ${rest}${below}` : `${Math.floor(whole / size)}${unit}`;
      }
    }
    return `${whole}s`;
  }
  function seconds(text) {
    let sum = 0;
    for (const [, number, unit] of text.matchAll(/(\d+)([dhms])/g)) sum += Number(number) * { d: 86400, h: 3600, m: 60, s: 1 }[unit];
    return sum;
  }
  function age() {
    if (document.hidden) return;
    for (const one of document.querySelectorAll("time[data-moment]")) {
      const known = server.get(one);
      if (!known || known.text !== one.textContent) {
        server.set(one, { at: performance.now(), ahead: one.textContent.startsWith("in "), after: one.textContent.endsWith(" ago") ? " ago" : "", from: seconds(one.textContent), text: one.textContent });
        continue;
      }
      const passed = (performance.now() - known.at) / 1000;
      const now = known.ahead ? known.from - passed : known.from + passed;
      const text = known.ahead && now > 0 ? `in ${words(now)}` : `${words(Math.abs(now))}${known.after}`;
      if (text !== one.textContent) { one.textContent = text; known.text = text; }
    }
    for (const one of server.keys()) if (!one.isConnected) server.delete(one);
  }

  // -- output

  function watchLog() {
    const log = document.getElementById("log");
    if (!log || log.dataset.watched) return;
    log.dataset.watched = "yes";
    const follow = document.getElementById("follow");
    const wrap = document.getElementById("wrap");
    wrap.addEventListener("change", () => log.classList.toggle("wrap", wrap.checked));
    const down = () => { if (follow.checked) log.scrollTop = log.scrollHeight; };
    follow.addEventListener("change", down);
    down();
    let more = false;
    const ask = async () => {
      if (!log.isConnected) return false;
      const answer = await get(`${log.dataset.log}&from=${log.dataset.next}`);
      if (!answer.ok) return answer.status < 500 ? false : true;
      const part = await answer.json();
      if (part.cut || String(part.run) !== log.dataset.run) {
        log.textContent = "";
        if (!part.cut && part.from !== 0) { log.dataset.run = part.run; log.dataset.next = -1; return true; }
      }
      log.dataset.run = part.run;
      log.dataset.next = part.next;
      if (part.text) {
        log.append(part.text);
        log.normalize();
        const whole = log.textContent;
        if (whole.length > LONGEST_LOG) {
          const line = whole.indexOf("\n", whole.length - LONGEST_LOG);
          log.textContent = whole.slice(line < 0 ? whole.length - LONGEST_LOG : line + 1);
        }
        down();
      }
      log.dataset.end = part.end ? "yes" : "no";
      more = part.text !== "" && part.next < part.size;
      if (part.size - part.next > FAR_BEHIND) {
        // It is written faster than it can be read: the end is what one looks for, and the whole can be downloaded.
        log.append("\n[not all of the output is shown here]\n");
        log.dataset.next = -1;
      }
      return true;
    };
    every(() => (more ? 100 : log.dataset.end === "yes" ? 4000 : 1000), ask);
  }

  // -- forms of /new: each field is checked by the server when it is left

  function watchCheck() {
    const form = document.querySelector("form[data-check]");
    if (!form || form.dataset.watched) return;
    form.dataset.watched = "yes";
    form.addEventListener("change", async (event) => {
      const field = event.target;
      if (!field.name || !field.value) return;
      const sent = new URLSearchParams();
      sent.set("token", form.elements.token.value);
      for (const one of new FormData(form)) if (one[0] !== "token" && one[1] && (one[0] === field.name || one[0] === "command")) sent.set(one[0], one[1]);
      try {
        const answer = await fetch(form.dataset.check, { method: "POST", body: sent });
        if (answer.status !== 200) return;
        const found = await answer.json();
        const fault = document.getElementById(`fault-${field.name}`);
        if (!fault) return;
        const wrong = !found.ok && found.field === field.name;
        fault.textContent = wrong ? found.message : "";
        fault.hidden = !wrong;
        field.toggleAttribute("aria-invalid", wrong);
        if (wrong) field.setAttribute("aria-invalid", "true");
      } catch { /* the server says it when the form is sent */ }
    });
  }

  function prepare() {
    for (const one of document.querySelectorAll(".live-tools, #keys")) one.hidden = false;
    for (const one of document.querySelectorAll(".copy")) {
      if (one.dataset.watched || !navigator.clipboard) continue;
      one.dataset.watched = "yes";
      one.hidden = false;
      one.addEventListener("click", async () => {
        await navigator.clipboard.writeText(document.getElementById(one.dataset.copy).textContent);
        one.textContent = "Copied";
        setTimeout(() => { one.textContent = "Copy"; }, 2000);
      });
    }
    watchLog();
    watchCheck();
  }

  // -- keys: a letter goes somewhere, and never acts

  const rows = () => [...main.querySelectorAll("tr[id] a.job, li.card[id] a.job")];
  function step(by) {
    const all = rows();
    if (!all.length) return;
    const here = all.findIndex((one) => one.closest("tr, li").contains(document.activeElement));
    all[Math.min(all.length - 1, Math.max(0, here < 0 ? 0 : here + by))].focus();
  }
  function reach(key) {
    const row = document.activeElement && document.activeElement.closest("tr[id], li.card[id]");
    const found = (row || main).querySelector(`[data-key="${key}"]`);
    if (found) {
      if (found.tagName === "SUMMARY") {
        found.parentElement.open = true;
        found.parentElement.querySelector(".question button").focus();
      } else found.focus();
    } else if (row) row.querySelector("a.job").click();
  }
  const places = { g: "/", l: "/jobs", d: "/dead", n: "/new" };
  document.addEventListener("keydown", (event) => {
    const inside = event.target.closest("input:not([type=checkbox]), textarea, select");
    if (event.key === "Escape" && inside) { inside.blur(); return; }
    if (event.ctrlKey || event.altKey || event.metaKey || inside || event.target.closest("dialog")) return;
    const key = event.key;
    if (places[key]) {
      const link = [...document.querySelectorAll("header nav a")].find((one) => one.getAttribute("href") === base + places[key]);
      if (link) link.click();
    } else if (key === "j") step(1);
    else if (key === "k") step(-1);
    else if (key === "x") {
      const row = event.target.closest("tr[id]");
      const box = row && row.querySelector("input[type=checkbox]");
      if (box) box.checked = !box.checked;
    } else if ("rch".includes(key)) reach(key);
    else if (key === "/") (document.querySelector("input[type=search]") || main).focus();
    else if (key === "f") { const box = document.getElementById("follow"); if (box) box.click(); }
    else if (key === "?") document.getElementById("help").showModal();
    else return;
    event.preventDefault();
  });
  const keys = document.getElementById("keys");
  if (keys) keys.addEventListener("click", () => document.getElementById("help").showModal());

  prepare();
  age();
  setInterval(age, 1000);
  if (main.dataset.part) every(() => Number(main.dataset.period), refresh);
})();
