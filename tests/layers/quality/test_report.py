"""Reports: the same bytes for the same verdict, complete for programs, harmless for browsers."""

import json
from html.parser import HTMLParser
from pathlib import Path

import numpy as np

from layers.quality import Gate, Metric, Rule, Verdict, judge
from layers.quality.interval import Sampling
from layers.quality.report import report, write_report

GATE = Gate(
    "toy <model>",
    "right",
    (Rule(Metric("right", "part of <all>", "higher"), samples=10, floor=0.5),),
    Sampling(resamples=200),
)


def judged(part: float) -> Verdict:
    order = np.random.default_rng(1).permutation(100)
    return judge(GATE, {"right": order < 100 * part}, {"right": order < 60}, seed=0)


class Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_report_says_what_was_found_and_why(tmp_path: Path) -> None:
    document = report(judged(0.4), {"candidate": {"version": "0123456789abcdef"}})
    assert write_report(document, tmp_path / "r.json", tmp_path / "r.html") == (tmp_path / "r.json").read_bytes()
    read = json.loads((tmp_path / "r.json").read_text())
    assert read["passed"] is False and read["candidate"]["version"] == "0123456789abcdef"
    assert [reason["check"] for reason in read["reasons"] if not reason["passed"]] == ["floor", "better"]
    assert read["metrics"][0]["samples"] == 100 and read["metrics"][0]["floor"] == 0.5
    page = Page((tmp_path / "r.html").read_text())
    assert "toy <model>: is refused" in page.text and "0123456789abcdef" in page.text
    assert all(reason["sentence"] in page.text for reason in read["reasons"])


def test_facts_are_words_and_no_json(tmp_path: Path) -> None:
    facts = {
        "serving": {"promotion": None, "number": 3},
        "data": {"drawn": {"frames": 900, "stream": [5, 7]}, "files": [], "held": [{"key": "a.h5"}, {"key": "b.h5"}]},
        "request": {"learning_rate": 0.1, "seed": None, "nothing": {}},
    }
    write_report(report(judged(0.9), facts), tmp_path / "r.json", tmp_path / "r.html")
    text = Page((tmp_path / "r.html").read_text()).text
    absent = ("promotionnone: the file that comes with the twin", "seednone given", "filesnone", "nothingnone")
    assert all(words in text for words in (*absent, "frames: 900", "stream: 5, 7", "key: b.h5", "learning rate0.1"))
    told = text.rpartition("Serving")[2]
    assert not [sign for sign in ("null", "[", "{", '"') if sign in told]
    assert json.loads((tmp_path / "r.json").read_text())["serving"]["promotion"] is None


def test_a_pass_looks_like_one(tmp_path: Path) -> None:
    write_report(report(judged(0.9), {}), tmp_path / "r.json", tmp_path / "r.html")
    assert "toy <model>: passes" in Page((tmp_path / "r.html").read_text()).text


def test_the_page_needs_nobody_else_and_runs_nothing(tmp_path: Path) -> None:
    facts = {"candidate": {"note": "<script>alert(1)</script>", "list": ["<img src=http://x/>"]}}
    write_report(report(judged(0.9), facts), tmp_path / "r.json", tmp_path / "r.html")
    page = Page((tmp_path / "r.html").read_text())
    assert not {tag for tag, _ in page.tags} & {"script", "img", "link", "iframe", "a", "object", "embed"}
    assert not [attrs for _, attrs in page.tags if {"src", "href", "onload", "onerror"} & attrs.keys()]
    assert "<script>alert(1)</script>" in page.text


def test_the_same_verdict_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_report(report(judged(0.9), {"data": {"n": 1}}), tmp_path / f"{name}.json", tmp_path / f"{name}.html")
    for suffix in ("json", "html"):
        assert (tmp_path / f"a.{suffix}").read_bytes() == (tmp_path / f"b.{suffix}").read_bytes()


def test_what_is_not_finite_is_null_and_not_drawn(tmp_path: Path) -> None:
    verdict = judge(GATE, {"right": np.ones(1)}, {"right": np.ones(1)}, seed=0)
    write_report(report(verdict, {}), tmp_path / "r.json", tmp_path / "r.html")
    assert json.loads((tmp_path / "r.json").read_text())["metrics"][0]["candidate"]["low"] is None
    assert "svg" not in {tag for tag, _ in Page((tmp_path / "r.html").read_text()).tags}
