"""Parts of a web page that needs nothing but itself: a style sheet, tables, bars and histograms as inline SVG."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence

ROWS = 60
"""Most rows of a table."""
NAME_CHARACTERS = 80
STYLE = """
:root{--paper:#fbfaf7;--card:#fff;--ink:#22211e;--soft:#6b6860;--line:#e5e2da;--good:#2b7a5b;--warn:#9a5f07;
--bad:#b3363f;--exact:#d9a441;--near:#ecd08e;--track:#efede6;--c0:#3f74b5;--c1:#d65f73;--c2:#2f8f63;--c3:#b59a2b;
--c4:#3aa6bf;--c5:#8f8b83;color-scheme:light dark}
@media(prefers-color-scheme:dark){:root{--paper:#141517;--card:#1c1e21;--ink:#e9e6df;--soft:#a29e94;--line:#303338;
--good:#62c39a;--warn:#e2a54a;--bad:#ef7d84;--exact:#d9a441;--near:#8a6f35;--track:#2a2d31;--c0:#6c9ee0;--c1:#ea8291;
--c2:#5fbd8f;--c3:#d3bb55;--c4:#63c6dc;--c5:#9c988f}}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,
"Noto Sans","Noto Sans CJK SC",sans-serif;font-variant-numeric:tabular-nums}
main{max-width:1080px;margin:0 auto;padding:36px 24px 56px}
h1{font-size:27px;line-height:1.2;margin:0 0 4px;letter-spacing:-.01em;overflow-wrap:anywhere}
h2{font-size:17px;margin:0 0 2px}p{margin:0}.note{color:var(--soft);font-size:13px;margin-bottom:12px;max-width:75ch}
section{background:var(--card);border:1px solid var(--line);border-radius:10px;padding:18px 20px;margin-top:18px}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(140px,1fr));gap:14px 16px;margin-bottom:18px}
.tiles b{display:block;font-size:23px;line-height:1.25;font-weight:600;letter-spacing:-.01em}
.tiles span{color:var(--soft);font-size:13px}
.law{margin-top:10px}.law i{display:inline-block;width:.7em;height:.7em;border-radius:2px;margin-right:.3em}
.law span{white-space:nowrap}.bad{color:var(--bad);font-weight:600}.good{color:var(--good)}
.scroll{overflow-x:auto}table{border-collapse:collapse;width:100%}
th{font-weight:500;color:var(--soft);font-size:12.5px;text-align:left;vertical-align:bottom}
th,td{padding:6px 14px 6px 0;border-bottom:1px solid var(--line)}tbody tr:last-child td{border-bottom:0}
td:last-child,th:last-child{padding-right:0}.n{text-align:right;white-space:nowrap}.w{min-width:96px;width:16%}
td:first-child,th:first-child{min-width:8em;position:sticky;left:0;background:var(--card)}
.t{min-width:13em}tr.all td{font-weight:600}svg{display:block;width:100%}
.bar{height:9px;border-radius:3px;background:var(--track)}.tall{height:18px;border-radius:4px}
.meter{background:linear-gradient(90deg,var(--track) 20%,var(--soft) 20% 20.8%,var(--track) 20.8% 50%,
var(--soft) 50% 50.8%,var(--track) 50.8%)}.change{margin-bottom:8px}
i.dot{display:inline-block;width:.65em;height:.65em;border-radius:50%;margin-right:.45em}
.word{border:1px solid;border-radius:99px;padding:0 9px;font-size:12.5px;white-space:nowrap}
.stable{color:var(--good)}.shifted{color:var(--warn);font-weight:600}
.different{color:var(--bad);font-weight:600;border-width:2px}
.panels{display:grid;grid-template-columns:repeat(auto-fill,minmax(250px,1fr));gap:18px 26px}
.panels svg{margin-top:4px}.panels span{color:var(--soft);font-size:13px}.panels path{stroke:var(--line)}
.panels text{font-size:10px;fill:var(--soft);text-anchor:middle}
details{border-bottom:1px solid var(--line);padding:6px 0}details:last-child{border:0}summary{cursor:pointer}
ul{margin:4px 0;padding-left:20px;color:var(--soft)}
li,code{font:12.5px/1.5 ui-monospace,"SF Mono",Menlo,Consolas,monospace;overflow-wrap:anywhere}
footer{color:var(--soft);font-size:12.5px;margin-top:20px;max-width:85ch}
@media(max-width:560px){main{padding:22px 12px 40px}section{padding:14px}h1{font-size:22px}.tiles b{font-size:21px}
.tiles{grid-template-columns:1fr 1fr}th,td{padding-right:10px}.w{display:none}
tr:has(.t){display:flex;flex-wrap:wrap;border-bottom:1px solid var(--line)}thead tr:has(.t),.t:empty{display:none}
tr:has(.t) td{border:0;width:7em}tr:has(.t) td:first-child{flex:1}tr:has(.t) .n{width:4em}
tr:has(.t) td.t{flex:1 0 100%;font-size:13px;padding-top:0;color:var(--soft)}
tr:has(.t) td.t:first-child{color:var(--ink);padding:6px 0 0}}
"""
"""Light and dark, wide and narrow. `--c0` to `--c5` tell categories apart, the words beside them do so too."""


def shown(text: object, limit: int = NAME_CHARACTERS) -> str:
    """Text from the data on one line: bounded, and nothing in it that the eye or the file cannot hold.

    Characters that are not printable give way to U+FFFD: controls, lone surrogates, and the marks that turn the
    direction of the text around them.
    """
    line = " ".join(str(text)[: 4 * limit].split())
    line = "".join(character if character.isprintable() else "\ufffd" for character in line)
    return line if len(line) <= limit else line[: limit - 1] + "…"


def safe(text: object, limit: int = NAME_CHARACTERS) -> str:
    """The same as HTML, kept apart from what surrounds it whichever way it is written."""
    return f"<bdi>{html.escape(shown(text, limit))}</bdi>"


def size(num_bytes: int) -> str:
    """Bytes in the decimal unit that leaves one to three digits before the point."""
    value, unit = float(num_bytes), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if value < 999.95:
            break
        value, unit = value / 1000, larger
    return f"{num_bytes:,} B" if unit == "B" else f"{value:,.1f} {unit}"


def share(part: float, whole: float) -> str:
    return f"{part / whole:.1%}" if whole else ""


def ratio(part: float, whole: float) -> str:
    return f"{part / whole:.2f}" if whole else ""


def bar(parts: Iterable[tuple[str, float, str]], whole: float, css: str = "bar") -> str:
    """Parts (name, size, colour) of a whole, side by side; pointing at one shows its name and size."""
    drawn, left = [], 0.0
    for name, part, colour in parts:
        width = 100 * part / whole if whole else 0.0
        if width:
            drawn.append(
                f'<rect x="{left:.3f}" width="{width:.3f}" height="10" style="fill:{colour}">'
                f"<title>{html.escape(shown(name))}: {part:,} ({width:.1f}%)</title></rect>"
            )
        left += width
    inner = "".join(drawn)
    return f'<svg class="{css}" viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true">{inner}</svg>'


def histogram(bins: Sequence[tuple[str, int]], ticks: Sequence[tuple[int, str]], colour: str) -> str:
    """Columns of (what the bin holds, count), scaled to the highest; ticks (index, word) at the left edge of a bin."""
    width, highest = 260 / max(1, len(bins)), max([count for _, count in bins], default=0) or 1
    drawn = [
        f'<rect x="{index * width + 0.75:.1f}" y="{70 - 66 * count / highest - 1:.1f}" width="{width - 1.5:.1f}" '
        f'height="{66 * count / highest + 1:.1f}" rx="1" style="fill:{colour}"><title>{words}: {count:,}</title></rect>'
        for index, (words, count) in enumerate(bins)
        if count
    ]
    marks = [
        f'<path d="M{index * width:.1f} 70v4"/><text x="{index * width:.1f}" y="84">{word}</text>'
        for index, word in ticks
    ]
    inner = "".join(['<path d="M0 70.5h260"/>', *drawn, *marks])
    return f'<svg viewBox="-16 0 292 88" role="img" aria-label="histogram">{inner}</svg>'


def table(columns: Sequence[tuple[str, str]], rows: Sequence[Sequence[str]], total: Sequence[str] = ()) -> str:
    """Columns (heading, class) over rows of finished cells. Columns that are empty throughout are left out.

    Classes: `n` for numbers, `w` for bars, which a narrow screen has no room for, `t` for words that get a line of
    their own there. Rows beyond ROWS are counted, not shown.
    """
    if not rows:
        return ""
    kept = [index for index in range(len(columns)) if any(row[index] for row in [*rows, *([total] if total else [])])]

    def line(cells: Sequence[str], css: str = "") -> str:
        inner = "".join(f'<td class="{columns[index][1]}">{cells[index]}</td>' for index in kept)
        return f"<tr{css}>{inner}</tr>"

    heads = "".join(f'<th class="{columns[index][1]}" scope="col">{columns[index][0]}</th>' for index in kept)
    body = "".join(line(row) for row in rows[:ROWS])
    if len(rows) > ROWS:
        body += f'<tr><td colspan="{len(kept)}">and {len(rows) - ROWS:,} more</td></tr>'
    body += line(total, ' class="all"') if total else ""
    return f'<div class="scroll"><table><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table></div>'


def section(title: str, note: str, body: str) -> str:
    """A card; nothing at all without a body."""
    return f'<section><h2>{title}</h2><p class="note">{note}</p>{body}</section>' if body else ""


def page(title: str, lead: str, sections: Iterable[str], foot: str) -> str:
    """The whole document; `title` is plain text, everything else HTML."""
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{html.escape(shown(title))}</title><style>{STYLE}</style></head>\n"
        f"<body><main><h1>{safe(title)}</h1><p>{lead}</p>\n"
        + "\n".join(part for part in sections if part)
        + f"\n<footer>{foot}</footer></main></body></html>\n"
    )
