// The page at /status. Every text from the data is set as textContent, never as HTML; nothing is loaded from elsewhere.
"use strict";

const $ = (id) => document.getElementById(id);
const EVERY_MS = 15000;
let apiKey = "";

function element(name, { text = "", cls = "", title = "" } = {}) {
  const node = document.createElement(name);
  if (text) node.textContent = text;
  if (cls) node.className = cls;
  if (title) node.title = title;
  return node;
}

const hash = (sha256) => sha256.slice(0, 12);
const day = (iso) => iso.slice(0, 10);
const minute = (iso) => `${iso.slice(0, 10)} ${iso.slice(11, 16)}`;
const number = (value) => value.toLocaleString("en-US", { maximumSignificantDigits: 12 });
const plural = (count, noun) => `${number(count)} ${noun}${count === 1 ? "" : "s"}`;
const share = (part, whole) => (whole ? `${((100 * part) / whole).toFixed(part / whole < 0.1 ? 1 : 0)} %` : "–");
const short = (value) => number(Number(value.toPrecision(2)));
const score = (value) => value.toFixed(4).replace(/^0/, "");

function duration(seconds) {
  if (seconds < 1) return `${seconds.toFixed(1)} s`;
  if (seconds < 90) return `${Math.round(seconds)} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  if (seconds < 172800) return `${(seconds / 3600).toFixed(1)} h`;
  return `${Math.round(seconds / 86400)} days`;
}

function ago(iso, now) {
  const seconds = Math.max(0, (new Date(now) - new Date(iso)) / 1000);
  return seconds < 60 ? "just now" : `${duration(seconds)} ago`;
}

async function look() {
  const headers = apiKey ? { Authorization: `Bearer ${apiKey}` } : {};
  try {
    const response = await fetch("/status.json", { headers });
    const answer = await response.json();
    $("key-form").hidden = response.status !== 401 && response.status !== 403;
    if (!response.ok) throw new Error(answer.detail);
    show(answer);
  } catch (error) {
    $("health").className = "bad";
    $("health-text").textContent = "no answer";
    $("headline").textContent = "The service does not tell";
    $("attention").replaceChildren(element("li", { text: error.message }));
  }
}

function show(status) {
  const workers = Object.values(status.workers).reduce((sum, count) => sum + count, 0);
  $("health").className = status.is_ready ? "good" : "bad";
  $("health-text").textContent = status.is_ready ? `ready, ${plural(workers, "worker")}` : "not ready";
  $("project").textContent = status.project;
  $("stage").textContent = status.share ? `${status.stage}, ${100 * status.share} %` : status.stage;
  $("last-run").textContent = status.runs.length ? ago(status.runs[0].ended_at, status.now) : "none yet";
  $("read-at").textContent = `${status.now.slice(11, 19)} UTC`;
  $("cards").hidden = false;
  const count = status.attention.length;
  $("headline").textContent = count === 0 ? "All is well" : `${plural(count, "thing")} to look at`;
  $("attention").replaceChildren(...status.attention.map((text) => element("li", { text })));
  showBundle(status);
  showGate(status.evaluation);
  showRows(status.rows);
  showDrift(status.drift, status.now);
  showRuns(status);
}

function facts(target, pairs) {
  target.replaceChildren(
    ...pairs.filter(([, value]) => value).map(([name, value, title]) => {
      const pair = element("div");
      pair.append(element("dt", { text: name }), element("dd", { text: value, title: title || "" }));
      return pair;
    }),
  );
}

function showBundle(status) {
  const bundle = status.bundle;
  $("bundle-hash").textContent = bundle ? hash(bundle.sha256) : "none";
  $("bundle-note").textContent = bundle ? `since ${ago(bundle.since, status.now)}` : "nothing is deployed";
  if (!bundle) return;
  const barred = Object.keys(status.barred).length;
  facts($("bundle-facts"), [
    ["Learnt until", bundle.cutoff && day(bundle.cutoff)],
    ["Knows the log until", bundle.as_of && day(bundle.as_of)],
    ["Items", bundle.items !== null && number(bundle.items)],
    ["Before it", bundle.previous && hash(bundle.previous)],
    ["Challenger", status.challenger && `${hash(status.challenger)}, ${status.stage}`],
    ["Barred", barred && plural(barred, "bundle"), Object.values(status.barred).join("; ")],
  ]);
}

function meter(name, value, { text, scale, cls = "", alarm = false }) {
  const bar = element("div", { cls: `meter ${cls}` });
  const fill = element("i");
  fill.style.width = `${Math.min(100, (100 * value) / scale)}%`;
  bar.append(fill);
  const tone = alarm ? "alarm" : "";
  return [element("span", { text: name, cls: tone }), bar, element("span", { text, cls: `value ${tone}` })];
}

function showGate(evaluation) {
  const badge = $("verdict");
  badge.textContent = evaluation ? evaluation.verdict : "";
  badge.hidden = !evaluation;
  badge.className = evaluation && evaluation.verdict !== "promote" ? "badge bad" : "badge";
  $("gate-note").textContent = evaluation
    ? evaluation.failed_gates.length ? `In its way: ${evaluation.failed_gates.join(", ")}.` : "Every gate passed."
    : "No model has been evaluated yet.";
  const contest = $("contest");
  contest.replaceChildren();
  if (!evaluation || evaluation.recall === null) return;
  const best = evaluation.best_baseline_recall;
  const scale = 1.15 * Math.max(evaluation.recall, best || 0, 1e-9);
  contest.append(...meter("Recall@20, this model", evaluation.recall, { text: score(evaluation.recall), scale, cls: "own" }));
  if (best !== null) contest.append(...meter(evaluation.best_baseline, best, { text: score(best), scale }));
}

function showRows(rows) {
  const note = $("rows-note");
  if (!rows) {
    note.textContent = "no log has been validated yet";
    return;
  }
  const whole = rows.kept + rows.quarantined;
  note.textContent = `${number(rows.kept)} rows kept, ${share(rows.quarantined, whole)} in quarantine`;
  const parts = [rows.kept, rows.quarantined].map((count) => {
    const part = element("i");
    part.style.flex = `${count} 0 0`;
    return part;
  });
  $("rows-bar").replaceChildren(...parts.slice(0, rows.quarantined ? 2 : 1));
  $("rows-bar").setAttribute("aria-label", note.textContent);
  $("reasons").replaceChildren(
    ...Object.entries(rows.reasons).map(([reason, count]) => {
      const line = element("li");
      line.append(element("span", { text: reason }), element("span", { text: number(count) }));
      return line;
    }),
  );
}

function showDrift(drift, now) {
  $("drift-empty").hidden = drift !== null;
  $("drift-note").textContent = drift ? `nearest to a limit, as of ${day(drift.as_of)}` : "";
  const measures = $("measures");
  measures.replaceChildren();
  if (!drift) return;
  // A limit may be above or below: how near the two are says most. Those beyond come first.
  const nearness = ({ value, limit }) => {
    if (limit === null || value * limit <= 0) return 0;
    return Math.min(Math.abs(value), Math.abs(limit)) / Math.max(Math.abs(value), Math.abs(limit));
  };
  const worst = [...drift.measures].sort((a, b) => b.is_alarm - a.is_alarm || nearness(b) - nearness(a)).slice(0, 6);
  for (const one of worst) {
    const text = one.limit === null ? short(one.value) : `${short(one.value)}, limit ${short(one.limit)}`;
    const cls = one.is_alarm ? "over" : "own";
    const length = one.is_alarm ? 1 : nearness(one);
    measures.append(...meter(one.name.replaceAll("_", " "), length, { text, scale: 1, cls, alarm: one.is_alarm }));
  }
}

function showRuns(status) {
  $("runs-empty").hidden = status.runs.length > 0;
  $("runs").replaceChildren(...status.runs.map((run) => showRun(run, status)));
}

function showRun(run, status) {
  const line = element("li", { title: run.run_id });
  const when = element("div", { cls: "when", text: minute(run.ended_at) });
  when.append(element("small", { text: ago(run.ended_at, status.now) }));
  const track = element("div", { cls: "track" });
  for (const task of run.tasks) {
    const part = element("i", { text: task.task, cls: task.state, title: `${task.task}, ${duration(task.seconds)}: ${task.summary}` });
    part.style.flex = `${Math.max(task.seconds, 0.02 * run.seconds)} 0 0`;
    track.append(part);
  }
  const figure = (text, unit) => {
    const cell = element("div", { cls: "num", text });
    cell.append(element("small", { text: unit }));
    return cell;
  };
  const cost = run.cost === null ? ["–", "cost"] : [run.cost.toPrecision(2), status.currency];
  const cpu = run.cpu_seconds === null ? "–" : duration(run.cpu_seconds);
  const sentence = element("p", { cls: `sentence ${run.outcome === "failed" ? "bad" : ""}` });
  sentence.append(element("strong", { text: run.outcome }), ` · ${run.sentence}`);
  if (run.why) sentence.append(` · asked for by ${run.why}`);
  line.append(when, track, figure(duration(run.seconds), "duration"), figure(cpu, "CPU"), figure(...cost), sentence);
  return line;
}

$("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  apiKey = $("key").value;
  look();
});
look();
setInterval(look, EVERY_MS);
