"""report.html: whole, self-contained, and its numbers are those of report.json."""

import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from genpolicy.report.page import write_page

FIGURES = 9
VOID = {"meta", "br", "use", "path", "rect"}


@pytest.fixture
def html(tmp_path, report, material):
    write_page(tmp_path / "report.html", report, material)
    return (tmp_path / "report.html").read_text()


class Reader(HTMLParser):
    """Open tags must close; collects attributes and the numbers that name their source."""

    def __init__(self):
        super().__init__()
        self.stack, self.attributes, self.numbers = [], [], []

    def handle_starttag(self, tag, attrs):
        self.attributes += [(tag, *pair) for pair in attrs]
        found = dict(attrs)
        if tag == "data":
            self.numbers.append((found["data-key"], float(found["value"])))
        if tag not in VOID:
            self.stack.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.attributes += [(tag, *pair) for pair in attrs]

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.stack.pop() == tag


def read(html):
    reader = Reader()
    reader.feed(html)
    assert reader.stack == []
    return reader


def look_up(report, key):
    """``stages.pretrained.success_rate`` in report.json; stages are found by name."""
    value = report
    for part in key.split("."):
        if value is report.get("stages"):
            value = next(stage for stage in value if stage["name"] == part)
        else:
            value = value[int(part)] if isinstance(value, list) else value[part]
    return value


def test_every_number_is_that_of_report_json(html, report):
    numbers = read(html).numbers
    report = json.loads(json.dumps(report))
    assert len(numbers) > 40
    for key, value in numbers:
        assert value == look_up(report, key), key
    keys = {key for key, _ in numbers}
    for name in ("pretrained", "reference", "finetuned", "reranked", "deployed"):
        assert f"stages.{name}.success_rate" in keys
    assert {"training.wall_s", "deploy.missed_deadlines", "comparisons.0.p_value"} <= keys


def test_shown_text_rounds_its_number(html):
    shown = re.findall(
        r'<data value="([^"]+)" data-key="stages\.\w+\.success_rate">([\d.]+) %', html
    )
    assert len(shown) > 6
    for value, text in shown:
        digits = len(text.partition(".")[2])
        assert f"{100 * float(value):.{digits}f}" == text


def test_nothing_comes_from_outside(html):
    links = [a for a in read(html).attributes if a[1] in ("src", "href", "xlink:href", "srcset")]
    assert all(value.startswith(("#", "data:")) for _, _, value in links)
    assert not re.search(r"https?:|@import|<script|<link", html)
    assert all(found.startswith("#") for found in re.findall(r"url\(([^)]*)", html))


def test_every_figure_is_there_and_takes_the_colours_of_the_page(html):
    figures = re.findall(r"<svg.*?</svg>", html, re.DOTALL)
    assert len(figures) == FIGURES
    assert len({re.search(r'aria-label="([^"]+)"', svg)[1] for svg in figures}) == FIGURES
    for svg in figures:
        assert "currentColor" in svg
        assert not re.search("#0[1-9]0[1-9]0[1-9]", svg)
        assert svg.count("<path") > 5


def test_ids_are_unique_and_references_resolve(html):
    ids = re.findall(r' id="([^"]+)"', html)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'(?:href="#|url\(#)([^")]+)', html)) <= set(ids)


def test_template_is_filled_and_text_is_escaped(html):
    assert not re.search(r"\$[a-z_]+", html)
    assert "imitation of &lt;6&gt; demonstrations" in html
    assert "<6>" not in html


def test_a_base_that_still_rises_is_called_what_it_is(tmp_path, html, report, material):
    assert "this base is not converged" in html
    report["imitation"]["pretrain"]["flat"] = True
    write_page(tmp_path / "flat.html", report, material)
    assert "not converged" not in (tmp_path / "flat.html").read_text()


def test_the_film_is_inside_or_its_absence_explained(tmp_path, html, report, material):
    assert "apt-get install libosmesa6" in html and "<video" not in html
    film = tmp_path / "film.mp4"
    film.write_bytes(b"a film")
    write_page(tmp_path / "film.html", report, replace(material, film=film, filmed=[1004, 1009]))
    page = (tmp_path / "film.html").read_text()
    assert 'src="data:video/mp4;base64,YSBmaWxt"' in page and "seeds 1004, 1009" in page


def test_a_demo_in_which_nothing_succeeds_has_a_page(tmp_path, report, material):
    for stage in report["stages"]:
        stage.update(success_rate=0.0, success_lo=0.0)
    report["training"].update(rollout=[], curve=report["training"]["curve"][:1])
    report["training"]["best"]["env_steps"] = report["training"]["curve"][0]["env_steps"]
    none = {**material.scores, "success": material.scores["success"] & False, "auc": None}
    write_page(tmp_path / "zero.html", report, replace(material, scores=none))
    assert "0 %" in (tmp_path / "zero.html").read_text()
