"""Pieces of an HTML page that needs no other file: charts as SVG, tables that sort, the style, the script."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

Array = np.ndarray

COLORS = 8  # distinct line colours in the style below; later lines repeat them dashed


@dataclass(frozen=True)
class Line:
    """A line of a chart; color is the tracker's position, so that it looks the same everywhere on the page."""

    label: str
    color: int
    xs: Array
    ys: Array


@dataclass(frozen=True)
class Cell:
    """A table cell: text, value to sort by (the text, if None), share 0 .. 1 for a bar behind it, best or not."""

    text: str
    value: float | None = None
    share: float | None = None
    best: bool = False


@dataclass(frozen=True)
class Frame:
    """Where a chart's plotting area lies in its SVG, and what is at its right end."""

    width: int
    height: int
    x_max: float
    left: int = 46
    top: int = 12

    @property
    def right(self) -> int:
        """The area's right edge."""
        return self.width - 12

    @property
    def bottom(self) -> int:
        """The area's lower edge."""
        return self.height - 40

    def x(self, value: float) -> str:
        """Where a value on the horizontal axis is drawn."""
        share = value / self.x_max if self.x_max else 0.0
        return f"{self.left + (self.right - self.left) * share:.1f}"

    def y(self, value: float) -> str:
        """Where a value on the vertical axis, 0 .. 1, is drawn."""
        return f"{self.bottom - (self.bottom - self.top) * value:.1f}"


def escape(text: object) -> str:
    """Text for HTML, quotes included."""
    return html.escape(str(text), quote=True)


def breakable(text: object) -> str:
    """The same for names, which may break after `_` where a line is too long."""
    return escape(text).replace("_", "_<wbr>")


def chart(
    lines: Sequence[Line], x_label: str, y_label: str, x_max: float, *, wide: bool = False, title: str = ""
) -> str:
    """Lines over 0 .. x_max and 0 .. 1 as inline SVG that takes its colours from the page; in a wide one the first
    stands out."""
    frame = Frame(960, 190, x_max) if wide else Frame(420, 300, x_max)
    name = escape(title or y_label)
    head = f'<svg class="chart" viewBox="0 0 {frame.width} {frame.height}" role="img" aria-label="{name}">'
    drawn = "".join(_polyline(line, frame, faint=wide and line is not lines[0]) for line in reversed(lines))
    return head + _axes(frame, x_label, y_label, 3 if wide else 6) + drawn + "</svg>"


def _axes(frame: Frame, x_label: str, y_label: str, levels: int) -> str:
    """Grid lines, numbers and the names of the axes."""
    parts = []
    for y in np.linspace(0, 1, levels):
        parts.append(f'<path class="grid" d="M{frame.left},{frame.y(y)}H{frame.right}"/>')
        parts.append(f'<text x="{frame.left - 6}" y="{frame.y(y)}" dy="4" class="tick end">{y:g}</text>')
    for x in ticks(frame.x_max):
        parts.append(f'<text x="{frame.x(x)}" y="{frame.bottom + 16}" class="tick mid">{x:g}</text>')
    across, down = (frame.left + frame.right) / 2, (frame.top + frame.bottom) / 2
    parts.append(f'<text x="{across}" y="{frame.height - 6}" class="axis mid">{escape(x_label)}</text>')
    turned = f'transform="translate(13 {down}) rotate(-90)"'
    parts.append(f'<text {turned} class="axis mid">{escape(y_label)}</text>')
    return "".join(parts)


def _polyline(line: Line, frame: Frame, faint: bool = False) -> str:
    """A line with gaps where its values are not known; a value between two gaps is a short stroke."""
    known = np.isfinite(line.ys)
    before, after = np.concatenate([[False], known[:-1]]), np.concatenate([known[1:], [False]])
    parts = []
    for i in np.flatnonzero(known):
        parts.append(f"{'L' if before[i] else 'M'}{frame.x(float(line.xs[i]))},{frame.y(float(line.ys[i]))}")
        if not before[i] and not after[i]:
            parts.append("m-1.5,0h3")
    return f'<path {_stroke(line.color, faint)} d="{"".join(parts)}"><title>{escape(line.label)}</title></path>'


def legend(entries: Sequence[tuple[str, int, str]], row: bool = False) -> str:
    """Label, colour and score of each line in the given order, below each other or in a row."""
    items = [
        f'<li><svg viewBox="0 0 24 8" aria-hidden="true"><path {_stroke(color)} d="M0 4H24"/></svg>'
        f"<span>{escape(label)}</span><b>{escape(score)}</b></li>"
        for label, color, score in entries
    ]
    return f'<ul class="legend{" row" if row else ""}">{"".join(items)}</ul>'


def table(header: Sequence[str], rows: Sequence[Sequence[Cell]], caption: str = "") -> str:
    """A table that sorts by any column when its head is pressed; the first column holds names."""
    heads = "".join(f'<th scope="col"{_long(n)}><button type="button">{breakable(n)}</button></th>' for n in header)
    body = "".join(f"<tr>{''.join(_cell(cell, i) for i, cell in enumerate(row))}</tr>" for row in rows)
    title = f"<caption>{escape(caption)}</caption>" if caption else ""
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(caption or header[0])}">'
        f'<table class="sorts">{title}<thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table></div>'
    )


def document(title: str, subtitle: str, sections: Sequence[tuple[str, str]]) -> str:
    """The whole page; subtitle is HTML, sections are (heading, HTML)."""
    menu = "".join(f'<a href="#s{i}">{escape(heading)}</a>' for i, (heading, _) in enumerate(sections))
    body = "".join(
        f'<section id="s{i}"><h2>{escape(heading)}</h2>{content}</section>'
        for i, (heading, content) in enumerate(sections)
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta name="color-scheme" content="light dark"><title>{escape(title)}</title>'
        f"<style>{STYLE}</style></head>"
        f"<body><header><h1>{escape(title)}</h1><p>{subtitle}</p><nav>{menu}</nav></header>"
        f"<main>{body}</main><script>{SCRIPT}</script></body></html>\n"
    )


def thin(ys: Array, most: int = 300) -> tuple[Array, Array]:
    """Positions and values of at most `most` points, to keep long sequences small: means over equal stretches.

    A stretch is at least as long as known values usually lie apart, so that a line joins every tenth frame where every
    tenth is annotated. Means are of what is known in a stretch; both are NaN where nothing is.
    """
    ys = np.asarray(ys, float)
    known = np.isfinite(ys)
    apart = int(np.median(np.diff(np.flatnonzero(known)))) if known.sum() > 1 else 1
    count = min(most, len(ys) // apart)
    if count == len(ys):
        return np.arange(len(ys), dtype=float), ys
    starts = np.linspace(0, len(ys), count + 1).astype(int)[:-1]
    counts = np.add.reduceat(known, starts, dtype=float)
    counts[counts == 0] = np.nan
    return tuple(np.add.reduceat(np.where(known, values, 0.0), starts) / counts for values in (np.arange(len(ys)), ys))


def ticks(x_max: float) -> list[float]:
    """Round positions on 0 .. x_max, five or so."""
    if x_max <= 0:
        return [0.0]
    rough = x_max / 5
    scale = 10 ** np.floor(np.log10(rough))
    step = next(s * scale for s in (1, 2, 2.5, 5, 10) if s * scale >= rough * 0.999)
    return [round(i * step, 10) for i in range(int(x_max / step + 1e-9) + 1)]


def _stroke(color: int, faint: bool = False) -> str:
    """The attributes of a line's colour, dashes and weight."""
    dash = ' stroke-dasharray="7 4"' if color >= COLORS else ""
    return f'class="line c{color % COLORS}{" faint" if faint else ""}"{dash}'


def _cell(cell: Cell, column: int) -> str:
    known = cell.value is not None and np.isfinite(cell.value)
    value = f' data-v="{float(cell.value)!r}"' if known else ""
    if column == 0:
        return f'<th scope="row"{_long(cell.text)}{value}>{breakable(cell.text)}</th>'
    shaded = cell.share is not None and np.isfinite(cell.share)
    style = f' style="--share:{cell.share:.3f}"' if shaded else ""
    return f"<td{value}{style}{' class=best' if cell.best else ''}>{escape(cell.text)}</td>"


def _long(text: str) -> str:
    """Marks long names, which get a wider column so that they do not become towers."""
    return " class=long" if len(text) > 24 else ""


STYLE = """
:root{--bg:#fbfbfa;--card:#fff;--ink:#1c1e21;--soft:#5f6670;--rule:#e3e4e6;--bar:#0072b222;--edge:#0003;--strong:#005a8c;
--c0:#0072b2;--c1:#d55e00;--c2:#009e73;--c3:#b8578f;--c4:#b97f00;--c5:#3a9bd1;--c6:#444;--c7:#8a8a8a}
@media(prefers-color-scheme:dark){:root{
--bg:#131518;--card:#1b1e22;--ink:#e7e9ec;--soft:#9aa2ad;--rule:#30353c;--bar:#4db2ec2e;--edge:#000a;--strong:#7cc7f2;
--c0:#4db2ec;--c1:#ff8c42;--c2:#2fd1a2;--c3:#e58fc3;--c4:#f0b429;--c5:#9ad4f5;--c6:#e0e0e0;--c7:#909090}}
*{box-sizing:border-box}html{scroll-behavior:smooth;scroll-padding-top:1rem}
body{margin:0;background:var(--bg);color:var(--ink);
font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif}
header,main{max-width:1080px;margin:0 auto;padding:0 1.2rem}header{padding-top:1.8rem}
h1{font-size:1.75rem;line-height:1.2;margin:0 0 .3rem;letter-spacing:-.01em;overflow-wrap:anywhere}
h2{font-size:1.2rem;margin:0 0 .7rem}h3{font-size:1rem;margin:1.4rem 0 .3rem}
header p,.note{color:var(--soft);margin:.4rem 0 .8rem;max-width:76ch}
nav{display:flex;gap:.2rem 1.1rem;flex-wrap:wrap;border-bottom:1px solid var(--rule);padding:.5rem 0}
a{color:var(--strong);text-decoration:none}a:hover,a:focus-visible{text-decoration:underline}
section{background:var(--card);border:1px solid var(--rule);border-radius:12px;padding:1.1rem 1.2rem;
margin:1.1rem 0}
.scroll,.wide{overflow-x:auto;background:linear-gradient(90deg,var(--card) 30%,transparent) 0/2rem 100%,
linear-gradient(270deg,var(--card) 30%,transparent) 100%/2rem 100%,
linear-gradient(90deg,var(--edge),transparent) 0/.7rem 100%,
linear-gradient(270deg,var(--edge),transparent) 100%/.7rem 100%;
background-repeat:no-repeat;background-attachment:local,local,scroll,scroll}
.scroll:focus-visible{outline:2px solid var(--c0)}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums;font-size:.92rem}
caption{text-align:left;color:var(--soft);padding-bottom:.4rem}
th,td{padding:.34rem .6rem;text-align:right;white-space:nowrap;border-bottom:1px solid var(--rule)}
thead th{white-space:normal;max-width:9rem;vertical-align:bottom;line-height:1.25}
th[scope=row],thead th:first-child{text-align:left;position:sticky;left:0;background:var(--card);z-index:1}
th[scope=row]{font-weight:500;white-space:normal;max-width:15rem;min-width:6rem}
.long.long{min-width:11rem}td{min-width:4.4rem}tbody tr:last-child>*{border-bottom:0}
td{background:linear-gradient(90deg,var(--bar) calc(var(--share,0)*100%),transparent 0)}
td.best{font-weight:700;color:var(--strong)}
th button{all:unset;cursor:pointer;color:var(--soft);font-weight:600;font-size:.86rem}
th button:hover,th button:focus-visible{color:var(--ink);text-decoration:underline}
th[aria-sort=ascending] button::after{content:" \\25B2"}
th[aria-sort=descending] button::after{content:" \\25BC"}
.grid3{display:grid;grid-template-columns:repeat(auto-fit,minmax(270px,1fr));gap:1.2rem}
.chart{width:100%;height:auto;display:block}.chart .grid{stroke:var(--rule);fill:none}
.tick,.axis{fill:var(--soft);font-size:12px}.mid{text-anchor:middle}.end{text-anchor:end}
.line{fill:none;stroke-width:2;stroke-linejoin:round}
.faint{stroke-width:1.1;opacity:.7}
.c0{stroke:var(--c0)}.c1{stroke:var(--c1)}.c2{stroke:var(--c2)}.c3{stroke:var(--c3)}.c4{stroke:var(--c4)}
.c5{stroke:var(--c5)}.c6{stroke:var(--c6)}.c7{stroke:var(--c7)}
.legend{list-style:none;margin:.3rem 0 0;padding:0;font-size:.88rem}
.legend li{display:flex;align-items:center;gap:.5rem}.legend svg{width:24px;height:8px;flex:none}
.legend span{overflow-wrap:anywhere}.legend b{margin-left:auto;font-variant-numeric:tabular-nums}
.legend.row{display:flex;flex-wrap:wrap;gap:0 1.4rem}
.thumbs{display:grid;grid-template-columns:repeat(auto-fill,minmax(max(140px,22%),1fr));gap:.6rem;margin:.5rem 0 0}
figure{margin:0}figure img{width:100%;display:block;border-radius:6px}
figcaption{font-size:.8rem;color:var(--soft)}
.warn{border-left:4px solid var(--c1);padding:.3rem .8rem;margin:.6rem 0;overflow-wrap:anywhere}
pre{overflow-x:auto;font-size:.8rem;line-height:1.35;background:var(--bg);padding:.7rem;border-radius:8px}
summary{cursor:pointer}dl{display:grid;grid-template-columns:max-content 1fr;gap:.15rem 1rem;margin:.4rem 0;
font-size:.9rem}dt{color:var(--soft)}dd{margin:0;overflow-wrap:anywhere}
@media(max-width:640px){body{font-size:15px}header,main{padding:0 .7rem}
section{padding:.9rem .8rem;border-radius:10px}header{padding-top:1.1rem}h1{font-size:1.35rem}
th,td{padding:.3rem .45rem}.long.long{min-width:8.5rem}
th[scope=row]{min-width:7.4rem;max-width:8.5rem;overflow-wrap:break-word}
dl{grid-template-columns:1fr}dt{margin-top:.4rem}
.wide .chart{min-width:640px}}
@media print{nav{display:none}section{break-inside:avoid}}
"""

SCRIPT = """
for(const t of document.querySelectorAll('table.sorts')){
const heads=[...t.tHead.rows[0].cells],body=t.tBodies[0];
heads.forEach((th,i)=>th.firstChild.addEventListener('click',()=>{
const was=th.getAttribute('aria-sort'),down=was?was==='ascending':i>0;
heads.forEach(h=>h.removeAttribute('aria-sort'));th.setAttribute('aria-sort',down?'descending':'ascending');
const key=r=>{const v=r.cells[i].dataset.v;return v!==undefined?+v:null};
const text=r=>r.cells[i].textContent,numbers=[...body.rows].some(r=>key(r)!==null);
[...body.rows].sort((a,b)=>{
if(!numbers)return(down?-1:1)*text(a).localeCompare(text(b),'en',{numeric:true});
const x=key(a),y=key(b);if(x===null)return y===null?0:1;if(y===null)return-1;return down?y-x:x-y;
}).forEach(r=>body.append(r));}));}
"""
