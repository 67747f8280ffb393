"""The colours and the layout of pages and pictures: light, dark, narrow and on paper."""

from __future__ import annotations

from typing import Final

LIGHT: Final = {
    "paper": "#f6f7f9", "card": "#ffffff", "ink": "#1a1f26", "muted": "#566070", "rule": "#dfe3e8",
    "bar": "#2f6bd0", "done": "#0f7553", "bad": "#c0232f", "bad-soft": "#fdecec", "good-soft": "#e6f5ee",
    "warn-soft": "#fff4dc", "warn": "#8a5a00",
}  # fmt: skip
"""Each colour by its name; text stands on `paper`, `card` and the soft ones."""

DARK: Final = {
    "paper": "#101318", "card": "#191d24", "ink": "#e8ebf0", "muted": "#a2acba", "rule": "#2e3540",
    "bar": "#7aa7ff", "done": "#4fc995", "bad": "#ff8a8f", "bad-soft": "#3a1d21", "good-soft": "#14332a",
    "warn-soft": "#3a2f14", "warn": "#f0c060",
}  # fmt: skip


def _variables(colours: dict[str, str]) -> str:
    return "".join(f"--{name}:{colour};" for name, colour in colours.items())


_COLOURS: Final = (
    f":root{{color-scheme:light dark;{_variables(LIGHT)}}}"
    f"@media (prefers-color-scheme:dark){{:root{{{_variables(DARK)}}}}}"
)

_FONT: Final = "system-ui,-apple-system,'Segoe UI',Roboto,'Noto Sans',Ubuntu,sans-serif"

_PICTURE: Final = """
.picture{display:block;background:var(--card);width:100%;height:auto;font-family:FONT;font-variant-numeric:tabular-nums}
.picture text{fill:var(--ink)}
.picture .muted{fill:var(--muted)}
.grid{stroke:var(--rule)}
.axis{stroke:var(--muted)}
.gap{stroke:var(--card);stroke-width:3}
.bar{fill:var(--bar)}
.late.bar{fill:var(--bad)}
.past{fill:var(--bad-soft)}
.margin{fill:var(--warn-soft)}
.deadline{stroke:var(--bad);stroke-width:2}
.picture .deadline-label{fill:var(--bad);font-weight:600}
.margin-line{stroke:var(--warn);stroke-dasharray:4 3}
.picture .margin-line-label{fill:var(--warn)}
.total{stroke:var(--muted);stroke-width:1.5;stroke-dasharray:2 3}
.line{fill:none;stroke-width:2;stroke-linejoin:round}
.area{fill-opacity:.16}
.area.series-0,.dot.series-0,.swatch.series-0{fill:var(--bar)}
.line.series-0{stroke:var(--bar)}
.area.series-1,.dot.series-1,.swatch.series-1{fill:var(--done)}
.area.series-1{fill-opacity:.3}
.line.series-1{stroke:var(--done)}
""".replace("FONT", _FONT)

_PAGE: Final = """
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.5 FONT;overflow-wrap:anywhere}
main{max-width:50rem;margin:0 auto;padding:2rem 1rem 3rem}
h1{font-size:1.7rem;line-height:1.2;margin:0}
h2{font-size:1.25rem;margin:0}
h3{font-size:1rem;margin:0 0 .75rem}
p{margin:.5rem 0}
.muted,figcaption,footer{color:var(--muted)}
header{margin-bottom:1.5rem}
.verdict{border-radius:.5rem;padding:.6rem .9rem;margin:1rem 0 0;font-weight:600}
.verdict.good{background:var(--good-soft);color:var(--done)}
.verdict.bad{background:var(--bad-soft);color:var(--bad)}
section{background:var(--card);border:1px solid var(--rule);border-radius:.75rem;padding:1.25rem;margin:0 0 1.25rem}
dl{display:grid;grid-template-columns:repeat(auto-fill,minmax(10rem,1fr));gap:.9rem 1.25rem;margin:1.25rem 0 0}
dl div{border-left:3px solid var(--rule);padding-left:.7rem}
dt{color:var(--muted);font-size:.85rem}
dd{margin:0;font-weight:600;font-variant-numeric:tabular-nums}
dl .long{grid-column:span 2}
figure{margin:1.5rem 0 0}
figcaption{font-size:.9rem;margin-top:.5rem}
figcaption p{margin:.25rem 0}
.narrow{display:none}
.notes{margin:1.25rem 0 0;padding:.75rem 1rem .75rem 2rem;border-radius:.5rem}
.notes.bad{background:var(--bad-soft)}
.notes.warn{background:var(--warn-soft)}
details{margin-top:.75rem;font-size:.9rem}
summary{cursor:pointer;color:var(--muted)}
.scroll{overflow-x:auto}
table{border-collapse:collapse;margin-top:.5rem;font-variant-numeric:tabular-nums}
th,td{padding:.2rem 1.25rem .2rem 0;text-align:right;white-space:nowrap;border-bottom:1px solid var(--rule)}
th:first-child,td:first-child{text-align:left}
th{color:var(--muted);font-weight:600}
footer{font-size:.85rem}
@media (max-width:36rem){
main{padding:1.25rem .75rem 2rem}
section{padding:1rem .8rem}
dl{grid-template-columns:1fr 1fr}
.wide{display:none}
.narrow{display:block}
}
@media print{
:root{LIGHT}
body{background:none;font-size:11pt;-webkit-print-color-adjust:exact;print-color-adjust:exact}
main{max-width:none;padding:0}
section{border:0;border-top:1px solid var(--rule);border-radius:0;padding:1rem 0}
svg,.notes,.verdict,tr,dl div{break-inside:avoid}
h2,h3{break-after:avoid}
.wide{display:block}
.narrow{display:none}
details::details-content{content-visibility:visible;block-size:auto}
}
""".replace("FONT", _FONT).replace("LIGHT", "color-scheme:light;" + _variables(LIGHT))

PICTURE_STYLE: Final = "".join((_COLOURS + _PICTURE).splitlines())
"""For a picture in a file of its own."""

PAGE_STYLE: Final = "".join((_COLOURS + _PICTURE + _PAGE).splitlines())
"""For a page with pictures in it."""
