// The page at /. Every text from the data is set as textContent, never as HTML; nothing is loaded from elsewhere.
"use strict";

const $ = (id) => document.getElementById(id);
const basket = new Map(); // item_id -> title
let apiKey = "";

// The score's terms as a person may read them: what they have in common, in the order of the bar.
const GROUPS = [
  { name: "learned similarity", cls: "t0", has: (term) => term === "similarity" },
  { name: "bought together", cls: "t1", has: (term) => term === "filter" },
  { name: "own taste", cls: "t2", has: (term) => term.startsWith("affinity_") },
  { name: "bought before", cls: "t3", has: (term) => term === "repeat" },
  { name: "popular", cls: "t4", has: (term) => term.endsWith("popularity") },
  { name: "other", cls: "t5", has: () => true },
];
const SMALL_SHARE = 0.005;

function element(name, { text = "", cls = "" } = {}) {
  const node = document.createElement(name);
  if (text) node.textContent = text;
  if (cls) node.className = cls;
  return node;
}

async function ask(path, body) {
  const headers = apiKey ? { Authorization: `Bearer ${apiKey}` } : {};
  const options = { headers };
  if (body !== undefined) {
    options.method = "POST";
    options.body = JSON.stringify(body);
    headers["Content-Type"] = "application/json";
  }
  const response = await fetch(path, options);
  const answer = await response.json().catch(() => ({ detail: `The service answered ${response.status}.` }));
  if (response.status === 401 || (response.status === 403 && apiKey)) $("key-form").hidden = false;
  if (!response.ok) throw Object.assign(new Error(answer.detail), { status: response.status });
  return answer;
}

function say(text) {
  $("message").textContent = text;
  $("message").hidden = !text;
}

const day = (iso) => iso.slice(0, 10);
const plural = (count, noun) => `${count} ${noun}${count === 1 ? "" : "s"}`;

function ago(days) {
  if (days < 1) return "today";
  if (days < 14) return `${plural(Math.floor(days), "day")} ago`;
  if (days < 60) return `${Math.floor(days / 7)} weeks ago`;
  return `${Math.floor(days / 30.4)} months ago`;
}

function age(seconds) {
  if (seconds < 90) return "features are up to date";
  if (seconds < 5400) return `features are ${Math.round(seconds / 60)} min old`;
  if (seconds < 129600) return `features are ${Math.round(seconds / 3600)} h old`;
  return `features are ${Math.round(seconds / 86400)} days old`;
}

function money(price) {
  return price === null ? "" : price.toLocaleString(undefined, { minimumFractionDigits: 2, maximumFractionDigits: 2 });
}

// ---- status -------------------------------------------------------------------------------------------------------

async function showStatus() {
  let ready;
  try {
    const response = await fetch("/readyz");
    ready = await response.json();
  } catch {
    ready = { ready: false, reason: "no answer", workers: {} };
  }
  const workers = Object.values(ready.workers).reduce((sum, count) => sum + count, 0);
  $("health").className = ready.ready ? "good" : "bad";
  $("health-text").textContent = ready.ready ? `ready, ${plural(workers, "worker")}` : "not ready";
  $("health").title = ready.reason || "";
  $("bundle").textContent = ready.bundle ? ready.bundle.slice(0, 12) : "–";
  $("bundle").title = ready.bundle || "";
  if (ready.ready && ready.bundle !== showStatus.known) {
    try {
      showModel(await ask("/model"));
      showStatus.known = ready.bundle;
    } catch (error) {
      if (error.status === 401) say("");
    }
  }
}

function showModel(model) {
  $("cutoff").textContent = day(model.cutoff);
  $("clock").textContent = day(model.clock);
  $("item-count").textContent = model.items.toLocaleString();
  const chosen = $("category").value;
  $("category").replaceChildren(new Option("all", ""), ...model.categories.map((name) => new Option(name, name)));
  $("category").value = chosen;
}

// ---- lists --------------------------------------------------------------------------------------------------------

function card(item, rank) {
  const node = $("card").content.firstElementChild.cloneNode(true);
  const set = (cls, text) => {
    const part = node.querySelector(`.${cls}`);
    if (text) part.textContent = text;
    else part.remove();
  };
  set("rank", String(rank));
  set("title", item.title);
  set("category", item.category);
  set("brand-name", item.brand);
  set("item-id", item.title === item.item_id ? "" : item.item_id);
  set("price", money(item.price));
  set("score", item.score === undefined ? "" : item.score.toFixed(2));
  set("reason", (item.reasons || []).join(" "));
  const bar = node.querySelector(".bar");
  if (item.shares) drawShares(bar, item.shares);
  else bar.remove();
  node.querySelector(".like").addEventListener("click", () => showSimilar(item));
  node.querySelector(".add").addEventListener("click", () => addToBasket(item));
  return node;
}

function grouped(shares) {
  const parts = GROUPS.map((group) => ({ ...group, share: 0, terms: [] }));
  for (const [term, share] of Object.entries(shares)) {
    const part = parts.find((group) => group.has(term));
    part.share += share;
    if (share > SMALL_SHARE) part.terms.push(`${label(term)} ${percent(share)}`);
  }
  return parts.filter((part) => part.share > SMALL_SHARE);
}

function drawShares(bar, shares) {
  const parts = grouped(shares);
  for (const part of parts) {
    const piece = element("span", { cls: part.cls });
    piece.style.flexGrow = String(part.share);
    piece.title = part.terms.length > 1 ? `${part.name}: ${part.terms.join(", ")}` : `${part.name} ${percent(part.share)}`;
    bar.append(piece);
  }
  bar.setAttribute("aria-label", parts.map((part) => `${part.name} ${percent(part.share)}`).join(", "));
}

const label = (term) => term.replaceAll("_", " ");
const percent = (share) => `${Math.round(100 * share)} %`;

function showLegend(items) {
  const used = new Map(items.flatMap((item) => grouped(item.shares)).map((part) => [part.name, part.cls]));
  const inOrder = GROUPS.filter((group) => used.has(group.name));
  $("legend").replaceChildren(...inOrder.map((group) => element("span", { text: group.name, cls: group.cls })));
  $("legend").hidden = inOrder.length === 0;
}

const SOURCES = {
  online_store: "from the online store's history",
  events: "from what they just did",
  request: "from the basket",
  both: "from history and basket",
  popularity: "nobody known: what is popular",
};

function showResults(answer) {
  $("results").replaceChildren(...answer.items.map((item, index) => card(item, index + 1)));
  showLegend(answer.items);
  $("results-empty").hidden = answer.items.length > 0;
  $("results-empty").textContent = "No item is left under these conditions.";
  const notes = [SOURCES[answer.source]];
  if (answer.fresh_events) notes.push(`${plural(answer.fresh_events, "event")} since the features were made`);
  if (answer.degraded.length) notes.push(`without: ${answer.degraded.map(label).join(", ")}`);
  if (answer.unknown_items.length) notes.push(`${plural(answer.unknown_items.length, "item")} unknown`);
  $("results-note").textContent = notes.join(" · ");
}

const FACTS = {
  recency_days: ["Last purchase", (value) => ago(value)],
  frequency: ["Visits", (value) => Math.round(value).toLocaleString()],
  monetary: ["Spent", (value) => money(value)],
  basket_size: ["Items a visit", (value) => value.toFixed(1)],
  price_level: ["Price level", (value) => `${Math.round(100 * value)} of 100`],
  distinct_items: ["Different items", (value) => Math.round(value).toLocaleString()],
};

function showHistory(history) {
  $("history").replaceChildren(...history.items.map((item) => {
    const row = element("li");
    const name = element("span", { text: item.title });
    name.append(element("br"), element("small", { text: [item.category, item.brand].filter(Boolean).join(" · ") }));
    const when = element("span", { text: ago(item.age_days), cls: "when" });
    const times = Math.round(item.weight);
    if (times > 1) when.append(element("br"), element("small", { text: `${times} times` }));
    row.append(name, when);
    return row;
  }));
  $("facts").replaceChildren(...Object.entries(FACTS).flatMap(([key, [title, write]]) => {
    const value = history.statistics[key];
    if (value === null || value === undefined) return [];
    const box = element("div");
    box.append(element("dt", { text: title }), element("dd", { text: write(value) }));
    return [box];
  }));
  $("history-note").textContent =
    history.feature_age_seconds === null ? "" : age(history.feature_age_seconds);
  $("history-empty").hidden = history.items.length > 0;
  $("history-empty").textContent = "The history is empty.";
}

function noHistory(text) {
  $("history").replaceChildren();
  $("facts").replaceChildren();
  $("history-note").textContent = "";
  $("history-empty").textContent = text;
  $("history-empty").hidden = false;
}

async function showSimilar(item) {
  try {
    const answer = await ask("/similar", { item_id: item.item_id, k: 12 });
    $("similar-title").textContent = `Like ${answer.item.title}`;
    $("similar-list").replaceChildren(...answer.items.map((one, index) => card(one, index + 1)));
    if (!$("similar").open) $("similar").showModal();
  } catch (error) {
    say(error.message);
  }
}

// ---- asking -------------------------------------------------------------------------------------------------------

async function recommend() {
  say("");
  const user = $("user").value.trim();
  const body = { k: Number($("k").value) || 12, include_seen: $("seen").checked };
  if (user) body.user_id = user;
  if (basket.size) body.items = [...basket.keys()];
  if ($("category").value) body.category = $("category").value;
  if ($("price-min").value) body.price_min = Number($("price-min").value);
  if ($("price-max").value) body.price_max = Number($("price-max").value);
  body.diversity = Number($("diversity").value);
  // In the fragment, so that it can be shared and is never sent to the server or written to its logs.
  history.replaceState(null, "", user ? `#user=${encodeURIComponent(user)}` : location.pathname);
  const [list, past] = await Promise.allSettled([
    ask("/recommend", body),
    user ? ask(`/users/${encodeURIComponent(user)}/history`) : Promise.reject(new Error("Type an id to see a history.")),
  ]);
  if (list.status === "fulfilled") showResults(list.value);
  else say(list.reason.message);
  if (past.status === "fulfilled") showHistory(past.value);
  else noHistory(past.reason.message);
}

function addToBasket(item) {
  basket.set(item.item_id, item.title);
  showBasket();
  if ($("similar").open) $("similar").close();
  recommend();
}

function showBasket() {
  $("basket").replaceChildren(...[...basket].map(([id, title]) => {
    const chip = element("li", { text: title });
    const remove = element("button", { text: "✕" });
    remove.type = "button";
    remove.setAttribute("aria-label", `Remove ${title}`);
    remove.addEventListener("click", () => { basket.delete(id); showBasket(); recommend(); });
    chip.append(remove);
    return chip;
  }));
}

// ---- finding items ------------------------------------------------------------------------------------------------

let found = [];
let marked = -1;
let typing = 0;

async function find() {
  const text = $("search").value.trim();
  if (text.length < 2) return closeMatches();
  const turn = ++typing;
  try {
    const answer = await ask(`/items?limit=10&q=${encodeURIComponent(text)}`);
    if (turn !== typing) return;
    found = answer.items;
    marked = -1;
    $("matches").replaceChildren(...found.map((item) => {
      const row = element("li", { text: item.title });
      row.setAttribute("role", "option");
      row.append(element("small", { text: [item.category, item.brand, money(item.price), item.item_id].filter(Boolean).join(" · ") }));
      row.addEventListener("mousedown", (event) => { event.preventDefault(); pick(item); });
      return row;
    }));
    $("matches").hidden = found.length === 0;
    $("search").setAttribute("aria-expanded", String(found.length > 0));
  } catch (error) {
    say(error.message);
  }
}

function closeMatches() {
  $("matches").hidden = true;
  $("search").setAttribute("aria-expanded", "false");
}

function pick(item) {
  $("search").value = "";
  closeMatches();
  addToBasket(item);
}

$("search").addEventListener("input", find);
$("search").addEventListener("blur", closeMatches);
$("search").addEventListener("keydown", (event) => {
  if ($("matches").hidden) return;
  if (event.key === "ArrowDown" || event.key === "ArrowUp") {
    event.preventDefault();
    marked = (marked + (event.key === "ArrowDown" ? 1 : found.length - 1) + (marked < 0 && event.key === "ArrowUp" ? 1 : 0)) % found.length;
    [...$("matches").children].forEach((row, index) => row.classList.toggle("on", index === marked));
  } else if (event.key === "Enter") {
    event.preventDefault();
    pick(found[Math.max(marked, 0)]);
  } else if (event.key === "Escape") closeMatches();
});

$("form").addEventListener("submit", (event) => { event.preventDefault(); recommend(); });
$("key-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  apiKey = $("key").value;
  $("key-form").hidden = true;
  await showStatus();
  recommend();
});
$("similar-close").addEventListener("click", () => $("similar").close());

(async () => {
  await showStatus();
  setInterval(showStatus, 5000);
  const wanted = new URLSearchParams(location.hash.slice(1)).get("user");
  if (wanted) $("user").value = wanted;
  recommend();
})();
