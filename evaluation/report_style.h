// The look of the HTML report: light and dark by the reader's own setting, fonts of the reader's machine.
#pragma once

#include <string_view>

namespace tramontane {

inline constexpr std::string_view kReportStyle = R"css(
:root { color-scheme: light dark;
  --bg: #f7f6f2; --card: #ffffff; --ink: #1d2327; --soft: #667079; --line: #e2e0d8; --band: #8a93991c;
  --mark: #ffe08a; --same: #98a0a6; --good: #2c8a5f; --bad: #c4453c;
  --c0: #8a9399; --c1: #2f6fde; --c2: #d9662b; --c3: #2c9a78; --c4: #a24bbd; --c5: #c49a12; --c6: #d43d6e; --c7: #3aa6c9; --c8: #7a6a4f; }
@media (prefers-color-scheme: dark) { :root {
  --bg: #14181b; --card: #1c2226; --ink: #e8eaea; --soft: #98a3aa; --line: #2e363c; --band: #aab4ba1c;
  --mark: #7a5c00; --same: #727d84; --good: #5cc796; --bad: #f0796f;
  --c0: #8f9aa1; --c1: #6fa0ff; --c2: #ff9259; --c3: #4fcfa6; --c4: #cf86e6; --c5: #e8c24a; --c6: #ff7da4; --c7: #6bcdec; --c8: #b8a581; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--bg); color: var(--ink); font: 16px/1.55 system-ui, "Segoe UI", "Helvetica Neue", "DejaVu Sans", sans-serif; }
main { max-width: 1060px; margin: 0 auto; padding: 56px 28px 80px; }
header p.kind { margin: 0; letter-spacing: .14em; text-transform: uppercase; font-size: 12px; color: var(--soft); }
h1 { font-size: 40px; line-height: 1.15; margin: 6px 0 10px; font-weight: 650; letter-spacing: -.02em; overflow-wrap: anywhere; }
h2 { font-size: 24px; margin: 64px 0 4px; font-weight: 640; letter-spacing: -.01em; }
p.lead, p.note { color: var(--soft); max-width: 72ch; margin: 0 0 18px; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(200px, 1fr)); gap: 14px; margin: 30px 0 0; }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 14px; padding: 16px 18px 18px; border-top: 4px solid var(--own); }
.card h3 { margin: 0; font-size: 15px; overflow-wrap: anywhere; }
.card .format { color: var(--soft); font-size: 13px; margin: 0 0 12px; }
.card .big { font-size: 38px; line-height: 1; font-weight: 680; letter-spacing: -.03em; }
.card .big small { font-size: 17px; font-weight: 500; color: var(--soft); letter-spacing: 0; }
.card .what { color: var(--soft); font-size: 13px; margin: 4px 0 12px; }
.dots { display: flex; flex-wrap: wrap; gap: 4px; }
.dots i { width: 9px; height: 9px; border-radius: 50%; background: var(--line); }
.dots i.on { background: var(--own); }
.panel { background: var(--card); border: 1px solid var(--line); border-radius: 14px; padding: 22px 20px 14px; overflow-x: auto; }
svg { display: block; width: 100%; min-width: 640px; height: auto; }
svg text { font-size: 13px; fill: var(--ink); font-family: inherit; }
svg .tick { fill: var(--soft); font-size: 12px; } svg .name { font-weight: 620; font-size: 13px; } svg .end { font-weight: 600; }
svg .grid { stroke: var(--line); stroke-width: 1; } svg .axis { stroke: var(--same); stroke-width: 1; }
svg .curve { fill: none; stroke-width: 2.5; stroke-linejoin: round; } svg .mean { stroke: var(--ink); stroke-width: 1.5; stroke-dasharray: 2 3; }
svg .band { fill: var(--band); } svg .dot { fill-opacity: .72; stroke: var(--card); stroke-width: 1; } svg .dot:hover { fill-opacity: 1; stroke: var(--ink); }
svg .track { fill: var(--band); } svg .stayed { fill: var(--same); fill-opacity: .45; } svg .stereotype { fill: var(--bad); } svg .other { fill: var(--c5); }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; font-size: 14px; }
th, td { text-align: right; padding: 6px 12px; border-bottom: 1px solid var(--line); }
td:not(:first-child) { min-width: 92px; }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
thead th { border-bottom: 2px solid var(--own, var(--line)); }
td .meaning { display: block; color: var(--soft); font-size: 12px; white-space: normal; min-width: 150px; max-width: 34ch; }
details { background: var(--card); border: 1px solid var(--line); border-radius: 12px; margin: 0 0 10px; }
summary { cursor: pointer; padding: 12px 18px; font-weight: 600; display: flex; gap: 14px; align-items: center; list-style: none; }
summary::-webkit-details-marker { display: none; }
summary .ask { flex: 1; overflow-wrap: anywhere; } summary .dots { flex: none; }
.answers { padding: 0 18px 14px; display: grid; grid-template-columns: minmax(110px, 190px) 1fr; gap: 0 18px; }
.answers > div { border-top: 1px solid var(--line); padding: 9px 0; overflow-wrap: anywhere; }
.answers .who { font-weight: 620; font-size: 13px; } .answers .who small { display: block; font-weight: 400; color: var(--soft); }
.answers .said { white-space: pre-wrap; font-size: 15px; } .said .same { color: var(--same); } .said em { color: var(--same); }
mark { background: var(--mark); color: inherit; border-radius: 4px; padding: 0 3px; }
footer { margin-top: 60px; color: var(--soft); font-size: 13px; border-top: 1px solid var(--line); padding-top: 16px; }
@media print { body { background: #fff; } details { break-inside: avoid; } }
)css";

}  // namespace tramontane
