# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""The report's page in a real browser; skipped where there is no Chromium (Debian: apt-get install chromium)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
import os
from pathlib import Path
import re
import shutil
import subprocess
import threading
from urllib.parse import urlsplit

import pytest
from test_report import demo, EVIL, RECORDING, written

from dynsplit_ros.report.page import make_page
from dynsplit_ros.report.run import read_run

CHROMIUM = next(
    (path for name in ('chromium', 'chromium-browser', 'google-chrome') if (path := shutil.which(name))), None
)
#: What the browser asks for by itself, whatever it shows.
ITS_OWN = ('google.com', 'googleapis.com', 'gstatic.com')

pytestmark = [pytest.mark.skipif(CHROMIUM is None, reason='no Chromium is installed'), pytest.mark.timeout(180)]

#: Looks at the page as a person would, and leaves what it finds in attributes.
LOOK = """
<script>
addEventListener('load', () => {
  const root = document.documentElement, overlaps = [];
  const meet = (a, b) => a.left < b.right - 1 && b.left < a.right - 1 && a.top < b.bottom - 2 && b.top < a.bottom - 2;
  for (const svg of document.querySelectorAll('svg')) {
    const boxes = [...svg.querySelectorAll('text')].map((text) => [text.textContent, text.getBoundingClientRect()]);
    const frame = svg.parentElement.getBoundingClientRect();
    boxes.forEach(([name, a], i) => {
      if (a.left < frame.left - 1 || a.right > frame.right + 1) overlaps.push(`${name} leaves its figure`);
      for (const [other, b] of boxes.slice(i + 1)) if (meet(a, b)) overlaps.push(`${name} over ${other}`);
    });
  }
  for (const tile of document.querySelectorAll('.tiles div'))
    if (tile.scrollWidth > tile.clientWidth + 1) overlaps.push(`${tile.textContent} leaves its tile`);
  root.dataset.overlaps = overlaps.join('; ');
  const parts = [...document.querySelectorAll('main > section > *')];
  root.dataset.wide = Math.max(...parts.map((node) => node.getBoundingClientRect().right));
  const style = getComputedStyle(document.body);
  root.dataset.ink = `${style.color} on ${style.backgroundColor}`;
  const plot = document.querySelector('.plot'), box = plot.getBoundingClientRect();
  plot.dispatchEvent(new PointerEvent('pointermove', { clientX: box.left + box.width / 2, clientY: box.top + 9 }));
  root.dataset.tip = document.querySelector('.tip:not([hidden])')?.textContent ?? '';
});
</script>
"""


@dataclass
class Shown:
    """What a browser made of a page: its document, what it said on the console, and what it asked the network for."""

    document: str
    console: list[str]
    requests: list[str]

    def attribute(self, name: str) -> str:
        match = re.search(rf'<html[^>]* data-{name}="([^"]*)"', self.document)
        return match[1] if match else '(none)'


@pytest.fixture(scope='module')
def proxy() -> Iterator[tuple[int, list[str]]]:
    """Stand between the browser and the network, and note what it asks for."""
    asked: list[str] = []

    class Refusing(BaseHTTPRequestHandler):
        def refuse(self) -> None:
            asked.append(self.path)
            self.send_error(404)

        do_GET = do_POST = do_HEAD = do_CONNECT = do_OPTIONS = refuse

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(('127.0.0.1', 0), Refusing)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_address[1], asked
    server.shutdown()
    server.server_close()


@pytest.fixture
def show(proxy: tuple[int, list[str]], tmp_path: Path):
    """Return a function that has a browser show a page's HTML."""
    port, asked = proxy

    def look(html: str, *options: str) -> Shown:
        path = tmp_path / 'page.html'
        path.write_text(html, encoding='utf-8')
        asked.clear()
        result = subprocess.run(
            [
                str(CHROMIUM),
                '--headless',
                '--no-sandbox',
                '--disable-gpu',
                '--disable-quic',
                '--no-first-run',
                '--disable-background-networking',
                '--disable-component-update',
                '--disable-sync',
                '--enable-logging=stderr',
                f'--user-data-dir={tmp_path / "browser"}',
                f'--proxy-server=127.0.0.1:{port}',
                '--proxy-bypass-list=<-loopback>',
                '--virtual-time-budget=2000',
                *options,
                '--dump-dom',
                path.as_uri(),
            ],
            capture_output=True,
            text=True,
            timeout=150,
            env={**os.environ, 'HOME': str(tmp_path)},
        )
        assert result.returncode == 0, result.stderr
        requests = [
            url for url in asked if not (urlsplit(url if '//' in url else f'//{url}').hostname or '').endswith(ITS_OWN)
        ]
        return Shown(result.stdout, [line for line in result.stderr.splitlines() if 'CONSOLE' in line], requests)

    return look


def inspected(page: str, width: int) -> str:
    """Return the page in a given width, with what looks at it; that would not be let in by the page's own policy."""
    page = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', '', page)
    return page.replace('</style>', f'html {{ width: {width}px; }}</style>').replace('</body>', f'{LOOK}</body>')


def test_a_request_and_an_error_would_be_noticed(show) -> None:
    shown = show('<img src="http://elsewhere.example/a.png"><script>console.error("oh")</script>')
    assert shown.requests == ['http://elsewhere.example/a.png'] and any('oh' in line for line in shown.console)


def test_every_figure_is_drawn_without_an_error_or_a_request(show) -> None:
    page = make_page(read_run(RECORDING))
    shown = show(page)
    assert shown.console == [] and shown.requests == []
    figures = page.count('<figure')
    assert figures == 7 and shown.attribute('drawn') == str(figures)
    for drawn in re.findall(r'<figure.*?</figure>', shown.document, re.DOTALL):
        assert drawn.count('<path') >= 1 and drawn.count('<text') >= 4


@pytest.mark.parametrize('width, options', [(340, ()), (1100, ('--blink-settings=preferredColorScheme=0',))])
def test_nothing_overlaps_and_nothing_is_cut_off(show, tmp_path: Path, width: int, options: tuple[str, ...]) -> None:
    frames = demo()['frames']
    for one in frames:  # type: ignore[attr-defined]
        one['split_index'] = one['sequence']  # more splits than there is room for
        one['split_name'] = f'backbone.layer{one["split_index"]}.a_long_name'
    shown = show(inspected(make_page(read_run(written(tmp_path, demo(frames=frames)))), width), *options)
    assert shown.attribute('overlaps') == '', shown.console
    assert 0 < float(shown.attribute('wide')) <= width
    assert 'Mbit/s' in shown.attribute('tip')
    ink, paper = (
        sum(int(part) for part in re.findall(r'\d+', colour)) for colour in shown.attribute('ink').split(' on ')
    )
    assert ink - paper > 400 if options else paper - ink > 400  # light on dark where that is wanted, and well apart


def test_texts_of_a_recording_do_nothing(show, tmp_path: Path) -> None:
    act = 'document.documentElement.dataset.harm=1'
    harm = f'<img src=x onerror="{act}"><script>{act}</script>'
    document = demo(model=EVIL, steps=[{'name': harm, 'start_s': 0, 'end_s': 4}])
    for one in document['frames']:  # type: ignore[attr-defined]
        one['split_name'] = one['codec'] = harm
    shown = show(inspected(make_page(read_run(written(tmp_path, document))), 1100))
    assert shown.attribute('harm') == '(none)' and shown.attribute('drawn') == '7' and shown.requests == []
