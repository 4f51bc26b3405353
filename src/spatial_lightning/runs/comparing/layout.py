"""How the page of a comparison looks and filters; everything in one file, nothing fetched."""

from __future__ import annotations

from string import Template

PAGE = Template("""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
  content="$policy">
<title>$title</title>
<style>
:root { color-scheme: light dark; --page: #f6f6f4; --card: #fff; --ink: #1c1c1c; --soft: #6a6a6a; --line: #dcdcd8;
  --right: #00795a; --right-tint: #e9f5f0; --wrong: #b8480a; --wrong-tint: #fcf0e8; --mixed: #8a6a00; --mixed-tint: #faf4dd; }
@media (prefers-color-scheme: dark) { :root { --page: #161616; --card: #212121; --ink: #e8e8e8; --soft: #a0a0a0;
  --line: #3a3a3a; --right: #59c9a5; --right-tint: #17302a; --wrong: #f0945f; --wrong-tint: #3a2418;
  --mixed: #e0c050; --mixed-tint: #332c14; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
header, section { max-width: 76rem; margin: 0 auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; margin: 1.4rem 0 .6rem; overflow-wrap: anywhere; }
h2 { font-size: 1.25rem; margin: 2rem 0 .6rem; border-top: 1px solid var(--line); padding-top: 1.2rem; }
h3 { font-size: 1.05rem; margin: 1.6rem 0 .3rem; }
ul { padding-left: 1.2rem; overflow-wrap: anywhere; }
ul.said { list-style: none; padding: 0; }
ul.said li { margin: 0 0 .5rem; }
ul.warnings, ul.notes { color: var(--soft); font-size: .9rem; }
.soft { color: var(--soft); font-size: .9rem; }
.scroll { overflow-x: auto; background: var(--card); border: 1px solid var(--line); border-radius: 8px; margin: 1rem 0; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; font-size: .92rem; }
th, td { padding: .45rem .7rem; text-align: right; white-space: nowrap; border-bottom: 1px solid var(--line); }
th:first-child, td:first-child { text-align: left; position: sticky; left: 0; background: var(--card); }
td:first-child { white-space: normal; min-width: 9rem; font-weight: 600; }
tbody tr:last-child td { border-bottom: 0; }
th button { all: unset; cursor: pointer; font-weight: 600; }
th button:focus-visible { outline: 2px solid var(--right); outline-offset: 2px; }
th[aria-sort="ascending"] button::after { content: " ▲"; }
th[aria-sort="descending"] button::after { content: " ▼"; }
details { margin: .4rem 0; }
summary { cursor: pointer; }
.plots { columns: 26rem; column-gap: 1rem; }
figure { break-inside: avoid; overflow-x: auto; margin: 0 0 1rem; background: #fff; color: #333;
  border: 1px solid var(--line); border-radius: 8px; padding: .6rem; }
figure img { width: 100%; display: block; }
figcaption { font-size: .85rem; }
form { position: sticky; top: 0; z-index: 1; background: var(--page); border-bottom: 1px solid var(--line); }
form > div { padding: .6rem 0; display: flex; flex-wrap: wrap; gap: .5rem 1rem; align-items: center; }
form details { flex-basis: 100%; margin: 0; }
form details > div { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 22rem), 1fr)); gap: .4rem 1rem;
  padding-top: .4rem; max-height: 30vh; overflow: auto; }
form details label { display: flex; justify-content: space-between; gap: .6rem; }
.pair { display: inline-flex; flex-wrap: wrap; gap: .3rem; align-items: center; }
select, input, form button { font: inherit; max-width: 14rem; }
output { margin-left: auto; color: var(--soft); }
article { display: flex; gap: 1rem; align-items: flex-start; background: var(--card); border: 1px solid var(--line);
  border-radius: 8px; padding: 1rem; margin: 1rem 0; scroll-margin-top: 5rem; }
article[hidden] { display: none; }
article:focus { outline: 2px solid var(--right); }
.pictures { flex: 0 0 15rem; display: grid; gap: .5rem; }
.pictures img { width: 100%; border-radius: 4px; display: block; }
.words { flex: 1; min-width: 0; overflow-wrap: anywhere; }
.words p { margin: 0 0 .4rem; }
.tags { color: var(--soft); font-size: .85rem; }
.tags span { float: right; }
.tags b { color: var(--ink); }
.question { font-weight: 600; }
.missing { color: var(--soft); border: 1px dashed var(--line); border-radius: 4px; padding: 1rem; margin: 0; text-align: center; }
.beside { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 12rem), 1fr)); gap: .5rem; }
.answer { border-left: 4px solid var(--line); border-radius: 4px; padding: .4rem .7rem; }
.answer p span { font-size: .85rem; font-weight: 600; white-space: nowrap; }
.answer .text { white-space: pre-wrap; }
.right { background: var(--right-tint); border-color: var(--right); }
.wrong { background: var(--wrong-tint); border-color: var(--wrong); }
.mixed { background: var(--mixed-tint); border-color: var(--mixed); }
.right p span { color: var(--right); }
.wrong p span { color: var(--wrong); }
.mixed p span { color: var(--mixed); }
kbd { border: 1px solid var(--line); border-radius: 4px; padding: 0 .35rem; background: var(--card); }
@media (max-width: 44rem) {
  article { flex-direction: column; }
  .pictures { flex-basis: auto; width: 100%; max-width: 24rem; }
  form { position: static; }
  figure img { min-width: 34rem; }
  figcaption { position: sticky; left: 0; }
  td:first-child { min-width: 8rem; max-width: 10rem; overflow-wrap: anywhere; font-size: .82rem; padding: .45rem; }
  article { scroll-margin-top: 1rem; }
  .keys { display: none; }
}
</style>
</head>
<body>
<header><h1>$title</h1>$notes</header>
<main>
$parts
</main>
<script type="application/json" id="pictures">$pictures</script>
<script>
const sources = JSON.parse(document.getElementById("pictures").textContent);
for (const image of document.querySelectorAll("img[data-picture]")) image.src = sources[image.dataset.picture];

for (const table of document.querySelectorAll("table")) {
  const heads = [...table.querySelectorAll("th")], body = table.tBodies[0];
  heads.forEach((head, column) => head.firstChild.addEventListener("click", () => {
    const down = head.getAttribute("aria-sort") !== "descending";
    heads.forEach((other) => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const value = (row) => row.cells[column].dataset.sort;
    const order = (a, b) => (a !== "" && b !== "" && !isNaN(a) && !isNaN(b)) ? a - b : a.localeCompare(b);
    body.append(...[...body.rows].sort((a, b) => order(value(a), value(b)) * (down ? -1 : 1)));
  }));
}

const state = () => new URLSearchParams(location.hash.slice(1));
const forms = [...document.querySelectorAll("section.benchmark")].map((section) => {
  const form = section.querySelector("form"), none = section.querySelector(".none");
  const rows = [...section.querySelectorAll("article")].map((element) => ({
    element, ...element.dataset, shares: element.dataset.shares.split(" ").map(Number),
    words: element.textContent.toLowerCase(),
  }));
  const prefix = form.querySelector("select").name.replace(/kind$$/, "");
  const fits = {right: (share) => share === 1, wrong: (share) => share === 0, mixed: (share) => share > 0 && share < 1};
  function filter() {
    const of = (name) => form.elements[prefix + name]?.value ?? "";
    const words = of("q").toLowerCase().split(/\\s+/).filter(Boolean), a = of("a"), b = of("b");
    let shown = 0;
    for (const row of rows) {
      const keep = (!of("kind") || row.kind === of("kind")) && (!of("style") || row.style === of("style"))
        && words.every((word) => row.words.includes(word))
        && (!a || !b || row.shares[a] !== row.shares[b])
        && row.shares.every((share, index) => !of("g" + index) || fits[of("g" + index)](share));
      row.element.hidden = !keep;
      shown += keep;
    }
    none.hidden = shown > 0;
    form.querySelector("output").textContent = shown + " of " + rows.length + " shown";
  }
  function remember() {
    const now = state();
    for (const control of form.elements) {
      if (!control.name) continue;
      if (control.value) now.set(control.name, control.value); else now.delete(control.name);
    }
    try { history.replaceState(null, "", "#" + now); } catch { /* a page in a frame may not */ }
  }
  function recall() {
    const now = state();
    for (const control of form.elements) {
      if (!control.name) continue;
      control.value = now.get(control.name) ?? "";
      if (control.selectedIndex === -1) control.value = "";
    }
    filter();
  }
  form.addEventListener("input", () => { filter(); remember(); });
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => setTimeout(() => { filter(); remember(); }));
  recall();
  return {form, recall};
});
addEventListener("hashchange", () => forms.forEach(({recall}) => recall()));

addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const typing = event.target.matches?.("input, select, textarea");
  if (event.key === "Escape" && typing) event.target.blur();
  if (typing) return;
  if (event.key === "/") {
    event.preventDefault();
    const seen = document.activeElement.closest?.("section.benchmark") ?? document;
    seen.querySelector("input[type=search]")?.focus();
  }
  if (event.key === "j" || event.key === "k") {
    const shown = [...document.querySelectorAll("article:not([hidden])")];
    const here = shown.indexOf(document.activeElement.closest?.("article"));
    const next = event.key === "j" ? here + 1 : Math.max(0, here - 1);
    shown[Math.min(next, shown.length - 1)]?.focus();
  }
});
</script>
</body>
</html>
""")
