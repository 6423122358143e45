"use strict";
// Text of models and tasks becomes the text of nodes (textContent, append of strings), and never HTML.

const data = JSON.parse(document.getElementById("data").textContent);
const by = (id) => document.getElementById(id);
const BLUE = "0,114,178", ORANGE = "213,94,0", FULL = 0.55;
const state = { iteration: 0, kind: "all", id: null };

function node(tag, className, ...children) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  made.append(...children.filter((c) => c !== null));
  return made;
}

const text = (words) => node("div", "text", words);
const signed = (x, digits) => (x < 0 ? "−" : "+") + Math.abs(x).toFixed(digits);
const iteration = () => data.iterations[state.iteration];
const of = (problem) => problem.iterations[iteration().t];
const matching = (problem) => of(problem).samples.filter((s) => state.kind === "all" || s.kind === state.kind);

// --- which problems ---

function found() {
  const words = by("search").value.toLowerCase().split(/\s+/).filter(Boolean);
  return data.problems.filter((p) => {
    const all = [p.id, p.question, ...(p.choices || [])].join(" ").toLowerCase();
    return words.every((w) => all.includes(w)) && matching(p).length > 0;
  });
}

function listProblems() {
  const some = found(), list = by("problem");
  if (!some.some((p) => p.id === state.id)) state.id = some.length ? some[0].id : null;
  list.replaceChildren(...some.map((p) => {
    const samples = of(p).samples, right = samples.filter((s) => s.kind === "right").length;
    const words = p.question.replace(/\s+/g, " ");
    const option = node("option", "", `${p.id} · ${right} of ${samples.length} right · ${words}`);
    option.value = p.id;
    option.selected = p.id === state.id;
    return option;
  }));
  by("count").textContent = `· ${some.length} of ${data.problems.length} match`;
  const place = some.findIndex((p) => p.id === state.id);
  by("previous").disabled = place <= 0;
  by("next").disabled = place < 0 || place >= some.length - 1;
}

function step(places) {
  const some = found(), place = some.findIndex((p) => p.id === state.id) + places;
  if (place >= 0 && place < some.length) choose(some[place].id);
}

function choose(id) {
  state.id = id;
  draw();
}

// --- one problem ---

function question(problem) {
  const box = node("div", "question", text(problem.question));
  for (const choice of problem.choices || []) box.append(text(choice));
  if (problem.answer) box.append(node("p", "", node("b", "", "Gold answer: "), node("span", "text", problem.answer)));
  if (problem.solution) box.append(node("p", "", node("b", "", "Gold solution")), text(problem.solution));
  return box;
}

function sampleCard(s) {
  const answer = s.answer === null ? "no answer" : `answer ${s.answer}`;
  const cut = s.cut ? ", cut at the length limit" : "";
  const outcome = (s.kind === "none" ? answer : `${s.kind}, ${answer}`) + (s.reward === null ? "" : `, reward ${s.reward}`);
  const meta = node("p", "meta text", `sample ${s.n}: ${outcome}, ${s.tokens} tokens${cut}`);
  return node("div", `card ${s.kind}`, meta, text(s.text.trim() || "(empty)"));
}

function columns(problem) {
  const some = matching(problem), all = of(problem).samples;
  const right = some.filter((s) => s.kind === "right"), others = some.filter((s) => s.kind !== "right");
  const n = (kind) => all.filter((s) => s.kind === kind).length;
  const sides = [];
  if (state.kind === "all" || state.kind === "right") sides.push([`Right: ${n("right")}`, right]);
  if (state.kind === "all") sides.push([`Wrong: ${n("wrong")}, no answer: ${n("none")}`, others]);
  if (state.kind === "wrong") sides.push([`Wrong: ${n("wrong")}`, others]);
  if (state.kind === "none") sides.push([`No answer: ${n("none")}`, others]);
  return node("div", sides.length > 1 ? "columns" : "columns one", ...sides.map(([head, cards]) =>
    node("div", "", node("h4", "", head), ...(cards.length ? cards.map(sampleCard) : [node("p", "quiet", "none")]))));
}

// --- its pairs ---

function token(words, ratio) {
  const strength = Math.min(1, Math.abs(ratio) / data.scale), visible = strength >= 0.1;
  const made = node("span", "token" + (visible ? (ratio > 0 ? " gain" : " loss") : ""));
  made.append(words.replace(/\n/g, "⏎\n"), node("small", "", Math.abs(ratio) < 0.005 ? "0" : signed(ratio, 2)));
  made.title = `${signed(ratio, 3)} nats`;
  if (visible) made.style.backgroundColor = `rgba(${ratio > 0 ? BLUE : ORANGE},${(FULL * strength).toFixed(3)})`;
  return made;
}

function response(r) {
  if (!r.tokens) return [text(r.text.trim())];
  const t = iteration().t, sum = r.after - r.before;
  const meta = `sum ${signed(sum, 2)} nats: ${signed(r.before, 2)} under M${t - 1}, ${signed(r.after, 2)} under M${t}`;
  const tokens = r.tokens.map((words, i) => token(words, r.ratios[i]));
  return [node("p", "meta", meta), node("div", "text tokens", ...tokens)];
}

function pairCard(pair, responses) {
  const chosen = `chosen (${pair.source === "gold" ? "gold solution" : "sampled by the model"})`;
  const card = (kind, head, r) =>
    node("div", `card ${kind}`, node("h4", "", `Pair ${pair.k + 1}, ${head}`), ...response(r));
  return node("div", "columns pair",
    card("chosen", chosen, responses[pair.chosen]), card("rejected", "rejected", responses[pair.rejected]));
}

function listPairs(problem) {
  const { pairs, responses } = of(problem), { why, paired } = iteration();
  const none = paired ? "This problem has no pair in this iteration." : "This iteration has no pairs yet.";
  const notes = why && pairs.length ? [node("p", "quiet text", `Tokens have no colours here: ${why}.`)] : [];
  if (!pairs.length) notes.push(node("p", "quiet", none));
  by("pair-list").replaceChildren(...notes, ...pairs.map((p) => pairCard(p, responses)));
  by("colours").hidden = !responses.some((r) => r.tokens);
}

function legend() {
  const t = iteration().t, half = data.scale / 2;
  const examples = [-data.scale, -half, 0, half, data.scale].map((x) => {
    const shown = token(signed(x, 2).replace("+0.00", "0"), x);
    shown.lastChild.remove();
    return shown;
  });
  by("legend").replaceChildren(
    node("span", "", `log M${t}(token) − log M${t - 1}(token), in nats:`), ...examples,
    node("span", "", "orange, dotted: less likely after training; blue, underlined: more likely. " +
      "Point at a token for its number."));
}

function draw() {
  listProblems();
  for (const button of by("reward").children) {
    button.setAttribute("aria-pressed", String(button.dataset.kind === state.kind));
  }
  const problem = data.problems.find((p) => p.id === state.id);
  by("pairs-of-problem").hidden = !problem;
  if (!problem) {
    const words = "No problem matches: change the search, the samples or the iteration.";
    by("shown").replaceChildren(node("p", "quiet", words));
    return;
  }
  by("shown").replaceChildren(node("h3", "", problem.id), question(problem), columns(problem));
  legend();
  listPairs(problem);
}

function start() {
  if (!data.problems.length) return;
  by("browser").hidden = false;
  const mixed = (p) => ["right", "wrong"].every((kind) => of(p).samples.some((s) => s.kind === kind));
  state.id = (data.problems.find(mixed) || data.problems[0]).id; // where there is something to compare
  by("iteration").append(...data.iterations.map((it, i) => {
    const at = it.temperature === null ? "" : ` at temperature ${it.temperature}`;
    const option = node("option", "", `${it.t}: sampled from M${it.t - 1}${at}`);
    option.value = String(i);
    return option;
  }));
  by("iteration").addEventListener("change", (e) => { state.iteration = Number(e.target.value); draw(); });
  by("reward").addEventListener("click", (e) => {
    if (!e.target.dataset.kind) return;
    state.kind = e.target.dataset.kind;
    draw();
  });
  by("search").addEventListener("input", draw);
  by("problem").addEventListener("change", (e) => choose(e.target.value));
  by("previous").addEventListener("click", () => step(-1));
  by("next").addEventListener("click", () => step(1));
  by("numbers").addEventListener("change", (e) => by("pair-list").classList.toggle("with-numbers", e.target.checked));
  draw();
}

start();
