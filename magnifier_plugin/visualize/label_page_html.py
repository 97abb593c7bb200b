"""The page that `label_page` fills: `{{title}}`, `{{facts}}` and `{{data}}` are replaced."""

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Label maps of {{title}}</title>
<style>
  :root { color-scheme: light dark; --line: #8886; --card: #8881; }
  body { font: 14px/1.4 system-ui, sans-serif; margin: 1.5rem; }
  h1 { font-size: 1.3rem; margin: 0 0 .5rem; }
  dl { display: grid; grid-template-columns: max-content 1fr; gap: .1rem 1rem; margin: 0 0 1rem; }
  dt { opacity: .7; } dd { margin: 0; overflow-wrap: anywhere; }
  #legend, #controls { display: flex; flex-wrap: wrap; gap: .4rem 1rem; align-items: center; }
  #legend { margin-bottom: 1rem; }
  #controls { position: sticky; top: 0; z-index: 1; background: Canvas; padding: .6rem 0;
              border-bottom: 1px solid var(--line); }
  .swatch { display: inline-block; width: .9em; height: .9em; margin-right: .35em;
            vertical-align: -.1em; border: 1px solid var(--line); }
  button, select, input { font: inherit; padding: .15rem .5rem; }
  button { border: 1px solid var(--line); border-radius: 1rem; background: none; cursor: pointer; }
  button[aria-pressed=true] { background: Highlight; color: HighlightText; }
  #cards { display: grid; gap: .8rem; margin-top: 1rem;
           grid-template-columns: repeat(auto-fill, minmax(15rem, 1fr)); }
  figure { margin: 0; padding: .6rem; background: var(--card); border: 1px solid var(--line);
           border-radius: .4rem; }
  figure img { display: block; max-width: 100%; height: 12rem; margin: 0 auto .4rem;
               object-fit: contain; object-position: top; }
  figcaption { overflow-wrap: anywhere; font-size: .85rem; }
  .kind { font-weight: 600; } .name { opacity: .75; }
  .bar { display: flex; height: .6rem; margin: .3rem 0; border: 1px solid var(--line); }
  ul { margin: .2rem 0; padding-left: 1.1rem; }
</style>
</head>
<body>
<h1>Label maps of {{title}}</h1>
<dl>{{facts}}</dl>
<div id="legend"></div>
<div id="controls">
  <span id="kinds"></span>
  <label>Sort <select id="sort"></select></label>
  <label>Name has <input id="text" type="search" size="14"></label>
  <span id="count"></span>
</div>
<div id="cards"></div>
<script id="data" type="application/json">{{data}}</script>
<script>
"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const byId = id => document.getElementById(id);
const percent = share => (100 * share).toFixed(1) + " %";
const body = item => item.shares.slice(1, -1).reduce((sum, share) => sum + share, 0);

function make(tag, content, attributes = {}) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...[].concat(content));
  return element;
}

// What sorts the cards; those that could not be read have no shares and come first.
const orders = { worst: null, name: (a, b) => a.name < b.name ? -1 : 1,
                 "least body": (a, b) => body(a) - body(b) };
data.regions.slice(1).forEach((region, index) => {
  const share = item => item.shares.length ? item.shares[index + 1] : -1;
  orders["least " + region] = (a, b) => share(a) - share(b);
  orders["most " + region] = (a, b) => share(b) - share(a);
});

function card(item) {
  const bar = make("div", item.shares.map((share, index) => make("span", [], {
    style: `width:${100 * share}%;background:${data.colours[index]}`,
    title: `${data.regions[index]} ${percent(share)}` })), { class: "bar" });
  return make("figure", [
    make("img", [], { src: item.picture, loading: "lazy", alt: "photo and label map" }),
    make("figcaption", [
      make("span", item.kind, { class: "kind" }), " ",
      make("span", item.name, { class: "name" }),
      item.shares.length ? bar : "",
      make("ul", item.reasons.map(reason => make("li", reason))),
    ]),
  ], { "data-kind": item.kind, "data-name": item.name });
}

const state = { kind: "all", sort: "worst", text: "" };

function show() {
  const chosen = data.items.filter(item =>
    (state.kind === "all" || item.kind === state.kind) && item.name.includes(state.text));
  if (orders[state.sort]) chosen.sort(orders[state.sort]);
  byId("cards").replaceChildren(...chosen.map(card));
  byId("count").textContent = `${chosen.length} shown`;
  byId("sort").value = state.sort;
  byId("text").value = state.text;
  for (const button of byId("kinds").children)
    button.setAttribute("aria-pressed", button.dataset.kind === state.kind);
}

function change(what) {
  Object.assign(state, what);
  history.replaceState(null, "", "#" + new URLSearchParams(state));
  show();
}

function readAddress() {
  const given = Object.fromEntries(new URLSearchParams(location.hash.slice(1)));
  Object.assign(state, given);
  if (!(state.sort in orders)) state.sort = "worst";
  show();
}

for (const [kind, number] of [["all", data.total], ...Object.entries(data.kinds)]) {
  const button = make("button", `${kind} ${number}`, { "data-kind": kind });
  button.onclick = () => change({ kind });
  byId("kinds").append(button, " ");
}
byId("sort").append(...Object.keys(orders).map(order => make("option", order)));
byId("sort").onchange = event => change({ sort: event.target.value });
byId("text").oninput = event => change({ text: event.target.value });
byId("legend").append(...data.regions.map((region, index) => make("span", [
  make("span", [], { class: "swatch", style: `background:${data.colours[index]}` }),
  region + (data.means.length ? " " + percent(data.means[index]) : "")])));
window.onhashchange = readAddress;
readAddress();
</script>
</body>
</html>
"""
