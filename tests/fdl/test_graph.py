"""The chain is drawn from outputs that are inputs and from FORWARD; a circle is an error unless it is wanted."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fdl.document import Document, read_file
from fdl.errors import FdlError
from fdl.forward import REGISTRY, REGISTRY_VARIABLE, format_forward, parse_forward
from fdl.graph import draw
from layers.runtime import forward as runtime
from layers.runtime import models
from layers.runtime.contract import InputError
from tests.fdl.conftest import service

Make = Callable[..., Document]
PULSAR = Path(__file__).parents[2] / "fdl/pulsar.yaml"


def chained(name: str, forward: str, **fields: Any) -> dict[str, Any]:
    return service(name, environment={"variables": {"FORWARD": forward}}, **fields)


def test_a_forward_is_an_edge(document: Make) -> None:
    graph = draw(document(chained("one", "*.h5 -> two/in; *.png -> archive/plots"), service("two")))
    assert [(edge.source, edge.pattern, edge.target, edge.place) for edge in graph.edges] == [
        ("one", "*.h5", "two", "two/in"),
        ("one", "*.png", None, "archive/plots"),
    ]


def test_an_output_that_is_an_input_is_an_edge(document: Make) -> None:
    output = [{"storage_provider": "minio.default", "path": "two/in", "suffix": [".h5"]}]
    graph = draw(document(service("one", output=output), service("two")))
    assert [(edge.source, edge.pattern, edge.target, edge.forwarded) for edge in graph.edges] == [
        ("one", "*.h5", "two", False)
    ]


def test_an_output_in_another_minio_is_no_edge(document: Make) -> None:
    output = [{"storage_provider": "minio.far", "path": "two/in"}]
    far = {"minio": {"far": {"endpoint": "http://far.example", "access_key": "a", "secret_key": "b"}}}
    one = {**service("one", output=output), "storage_providers": far}
    assert draw(document(one, service("two"))).edges == ()


def test_folders_are_compared_whole(document: Make) -> None:
    graph = draw(document(chained("one", "* -> two/inner; * -> two/in/deeper"), service("two")))
    assert [edge.target for edge in graph.edges] == [None, "two"]


def test_the_tree_shows_the_chain(document: Make) -> None:
    graph = draw(
        document(
            chained("one", "*.h5 -> two/in; *.png -> archive/plots"), chained("two", "* -> three/in"), service("three")
        )
    )
    assert graph.tree() == (
        "one\n├── *.h5 → two\n│   └── * → three\n└── *.png → archive/plots (no service of this file)"
    )


def test_what_goes_to_the_registry_of_models_is_meant(document: Make) -> None:
    forward = "**/versions/* -> models/toy; *.json -> my-models/toy"
    variables = {"FORWARD": forward, "DIOSCAR_REGISTRY": "my-models"}
    graph = draw(document(chained("one", forward), service("two", environment={"variables": variables})))
    assert [edge.place for edge in graph.edges if edge.registry] == ["models/toy", "my-models/toy"]
    assert "**/versions/* → models/toy (the registry of models)" in graph.tree()
    assert [line.split(" to ")[1].split(",")[0] for line in graph.warnings()] == ["my-models/toy", "models/toy"]
    assert graph.registries == {"models", "my-models"}
    assert (REGISTRY, REGISTRY_VARIABLE) == (models.BUCKET, models.VARIABLE)


def test_the_pulsar_twin_trains_validates_and_promotes() -> None:
    edges = draw(read_file(PULSAR)).downstream("pulsar-train") + draw(read_file(PULSAR)).downstream("pulsar-validate")
    assert [edge.target for edge in edges if not edge.registry] == ["pulsar-validate"]
    assert {edge.place for edge in edges if edge.registry} == {"models/pulsar-classifier"}


def test_the_graph_is_there_for_programs(document: Make) -> None:
    assert draw(document(chained("one", "* -> two/in"), service("two"))).to_json() == {
        "services": ["one", "two"],
        "edges": [
            {
                "source": "one",
                "pattern": "*",
                "place": "two/in",
                "target": "two",
                "loop": False,
                "registry": False,
                "through": "FORWARD",
            }
        ],
    }


@pytest.mark.parametrize(
    "forwards, circle",
    [
        (["* -> aaa/in"], "aaa -> aaa"),
        (["* -> bbb/in", "* -> aaa/in"], "aaa -> bbb -> aaa"),
        (["* -> bbb/in", "* -> ccc/in", "* -> bbb/in"], "bbb -> ccc -> bbb"),
    ],
)
def test_a_circle_is_an_error_that_names_it(document: Make, forwards: list[str], circle: str) -> None:
    with pytest.raises(FdlError) as caught:
        draw(
            document(*(chained(name, forward) for name, forward in zip(["aaa", "bbb", "ccc"], forwards, strict=False)))
        )
    assert f"the chain runs in a circle ({circle}); break it, or allow it with dioscar/loop:" in str(caught.value)
    assert "twin.yaml: functions.oscar[" in str(caught.value)


def test_the_closing_edge_may_be_allowed(document: Make) -> None:
    closing = chained("two", "* -> one/in", annotations={"dioscar/loop": "one/in"})
    graph = draw(document(chained("one", "* -> two/in"), closing))
    assert graph.tree() == "one\n└── * → two\n    └── * → one (loop)"


def test_another_edge_of_the_circle_does_not_allow_it(document: Make) -> None:
    other = chained("two", "* -> one/in", annotations={"dioscar/loop": "three/in"})
    with pytest.raises(FdlError, match="circle"):
        draw(document(chained("one", "* -> two/in"), other))


def test_consumers_come_before_producers(document: Make) -> None:
    graph = draw(document(chained("one", "* -> two/in"), chained("two", "* -> three/in"), service("three")))
    assert graph.consumers_first() == ("three", "two", "one")


def test_warnings_name_what_may_not_be_meant(document: Make) -> None:
    output = [{"storage_provider": "minio.default", "path": "two/in"}]
    outside, shared = draw(document(chained("one", "* -> archive/raw", output=output), service("two"))).warnings()
    assert "one and two both declare two/in" in outside and 'FORWARD: "* -> two/in"' in outside
    assert "one forwards * to archive/raw, where no service of this file listens" in shared


def test_a_forward_that_cannot_be_read_is_named(document: Make) -> None:
    with pytest.raises(FdlError, match=r'functions\.oscar\[0\]\.environment\.variables\.FORWARD: "\*\.h5" is no rule'):
        draw(document(chained("one", "*.h5")))


@given(st.lists(st.sampled_from(["*", "a.h5", "->", " -> ", ";", "b/c", "/", " ", "bucket/in", ""]), max_size=8))
def test_this_room_and_the_runtime_read_the_same_forwards(parts: list[str]) -> None:
    text = "".join(parts)
    try:
        ours = [(rule.pattern, rule.bucket, rule.folder) for rule in parse_forward(text)]
    except ValueError:
        with pytest.raises(InputError):
            runtime.parse_forward(text)
        return
    assert ours == [(rule.pattern, rule.bucket, rule.folder) for rule in runtime.parse_forward(text)]
    assert parse_forward(format_forward(parse_forward(text))) == parse_forward(text)
