"""How reports look, light and dark, and what happens when a series is pointed at."""

STYLE = """
:root {
  color-scheme: light dark;
  --page: #f7f8fa; --card: #ffffff; --ink: #1b2430; --soft: #5b6775; --rule: #e3e7ec;
  --c0: #1f6feb; --c1: #d9480f; --c2: #0a7f62; --c3: #9c36b5; --c4: #a86b00;
  --muted: #c3cad3; --reference: #1b2430; --good: #0a7f62; --bad: #c92a2a;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #10151c; --card: #18202a; --ink: #e6ebf1; --soft: #9aa7b5; --rule: #2a3542;
    --c0: #58a6ff; --c1: #ff8a4c; --c2: #3ecf9f; --c3: #d88be8; --c4: #e3b341;
    --muted: #3d4a59; --reference: #e6ebf1; --good: #3ecf9f; --bad: #ff8787;
  }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
main { max-width: 1320px; margin: 0 auto; padding: 32px 24px 48px; }
h1 { font-size: 26px; line-height: 1.2; margin: 0 0 4px; }
h1.part { font-size: 20px; margin: 36px 0 14px; }
h2 { font-size: 16px; margin: 0; }
p { margin: 0; overflow-wrap: anywhere; } .soft { color: var(--soft); } .note { margin-top: 14px; }
.facts { display: flex; flex-wrap: wrap; gap: 12px; margin: 20px 0; }
.fact { background: var(--card); border: 1px solid var(--rule); border-radius: 10px;
  padding: 12px 18px; min-width: min-content; flex: 1 1 160px; }
.fact b { display: block; font-size: 22px; line-height: 1.25; font-weight: 650;
  white-space: nowrap; }
.fact.long { min-width: 0; flex-basis: 340px; }
.fact.long b { white-space: normal; overflow-wrap: anywhere; }
.fact span { color: var(--soft); display: block; font-size: 13px; line-height: 1.35;
  text-wrap: balance; }
.cast { display: flex; flex-wrap: wrap; gap: 6px 18px; margin: 0 0 16px; font-size: 13px; }
.cast span { cursor: default; } .cast i { display: inline-block; width: 18px; height: 4px;
  border-radius: 2px; margin-right: 7px; vertical-align: middle; background: var(--p); }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(480px, 1fr)); gap: 16px; }
figure { background: var(--card); border: 1px solid var(--rule); border-radius: 10px; margin: 0;
  padding: 16px 18px 12px; }
figcaption { margin-bottom: 10px; } figcaption p { color: var(--soft); font-size: 13px;
  text-wrap: balance; }
svg { width: 100%; height: auto; display: block; } .on-phone { display: none; }
svg text { fill: var(--soft); font-size: 12px; font-variant-numeric: tabular-nums; }
svg text.name, svg text.value { fill: var(--ink); font-size: 13px; }
.grid { stroke: var(--rule); stroke-width: 1; }
.target { stroke: var(--ink); stroke-width: 1; stroke-dasharray: 2 4; opacity: .6; }
.line { fill: none; stroke: var(--p); stroke-width: 2; stroke-linejoin: round; }
.bar { fill: var(--p); } .dot { fill: var(--p); stroke: var(--card); stroke-width: 1.5; }
.range { stroke: var(--p); stroke-width: 2; }
.c0 { --p: var(--c0); } .c1 { --p: var(--c1); } .c2 { --p: var(--c2); } .c3 { --p: var(--c3); }
.c4 { --p: var(--c4); } .muted { --p: var(--muted); } .reference { --p: var(--reference); }
.muted .line { stroke-width: 1.3; } .reference .line { stroke-dasharray: 6 4; }
.reference .bar { fill: none; stroke: var(--p); stroke-dasharray: 4 3; }
.dots { fill: none; stroke: var(--p); stroke-width: 3; stroke-linecap: round; opacity: .35; }
.few.dots { stroke-width: 6; opacity: .55; } .some.dots { stroke-width: 4.5; opacity: .45; }
.area { fill: var(--p); opacity: .14; } .whisker { fill: none; stroke: var(--p); opacity: .7; }
.failed { fill: none; stroke: var(--bad); stroke-width: 1.5; } .bad { --p: var(--bad); }
.good { --p: var(--good); } .second .line { stroke-dasharray: 5 3; }
.verdict { background: var(--card); border: 1px solid var(--rule); border-left: 5px solid var(--p);
  border-radius: 10px; margin-top: 16px; padding: 12px 18px; }
.verdict b { color: var(--p); font-weight: 650; }
.verdict p { color: var(--soft); font-size: 14px; }
.wide { overflow-x: auto; background: var(--card); border: 1px solid var(--rule);
  border-radius: 10px; margin-top: 16px; padding: 16px 18px; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums;
  font-size: 14px; margin-top: 8px; }
th, td { padding: 5px 10px; text-align: right; border-bottom: 1px solid var(--rule);
  white-space: nowrap; }
th { color: var(--soft); font-weight: 500; font-size: 13px; }
th:first-child, td:first-child { text-align: left; }
td.long { white-space: normal; min-width: 14em; }
td.said { text-align: left; white-space: normal; min-width: 11em; padding-right: 0;
  overflow-wrap: anywhere; }
th.said { text-align: left; }
td.best { color: var(--good); font-weight: 650; }
tr.series td:first-child::before { content: ""; display: inline-block; width: 10px; height: 10px;
  border-radius: 3px; background: var(--p); margin-right: 8px; }
dl { display: grid; grid-template-columns: repeat(auto-fill, minmax(220px, 1fr)); gap: 8px 24px;
  margin: 10px 0 0; }
dt { color: var(--soft); font-size: 13px; } dd { margin: 0; overflow-wrap: anywhere; }
.pointing .series:not(.on) { opacity: .25; }
.pointing .series.on.muted { --p: var(--ink); } .pointing .series.on .line { stroke-width: 3; }
@media (max-width: 560px) {
  .plots { grid-template-columns: minmax(0, 1fr); } main { padding: 20px 12px; }
  .on-wide { display: none; } .on-phone { display: block; max-width: 440px; }
  figure { padding: 14px 12px 10px; } figure svg { overflow: visible; }
  .fact { flex-basis: 40%; min-width: 0; } .fact.long { flex-basis: 100%; }
  .fact b, .fact span { white-space: normal; overflow-wrap: anywhere; }
}
"""

SCRIPT = """
const every = [...document.querySelectorAll("[data-series]")];
for (const each of every) {
  each.addEventListener("mouseenter", () => {
    document.body.classList.add("pointing");
    for (const one of every) one.classList.toggle("on", one.dataset.series === each.dataset.series);
  });
  each.addEventListener("mouseleave", () => document.body.classList.remove("pointing"));
}
"""
"""Pointing at a series anywhere brings it out everywhere; the page reads as well without."""
