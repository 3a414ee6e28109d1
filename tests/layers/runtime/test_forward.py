"""FORWARD: rules, matches and hops."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layers.runtime import InputError
from layers.runtime.forward import HOPS, MAX_HOPS, Forward, Rule, forwards, next_hop, parse_forward


def test_rules_are_separated_by_semicolons():
    assert parse_forward(" *.h5 -> a/in ; x/*.json->b/in/deep; ") == (
        Rule("*.h5", "a", "in"),
        Rule("x/*.json", "b", "in/deep"),
    )


def test_no_rules_is_no_error():
    assert parse_forward("") == ()


@pytest.mark.parametrize("text", ["*.h5", "*.h5 -> bucket", "-> a/in", "*.h5 => a/in", "*.h5 -> /"])
def test_a_malformed_rule_is_quoted(text: str):
    with pytest.raises(InputError, match="is no rule; write"):
        parse_forward(text)


def test_a_glob_crosses_folders_and_folders_are_kept():
    assert list(forwards(parse_forward("*.h5 -> a/in"), ["x/y.h5", "y.json"])) == [Forward("x/y.h5", "a", "in/x/y.h5")]


def test_records_are_never_forwarded():
    assert list(forwards(parse_forward("* -> a/in; **/* -> a/in; **/_runs/* -> a/in"), ["_runs/a/b.json"])) == []


@pytest.mark.parametrize("folder", ["", "night/", "a/b/", "versions/", "versions/1/"])
def test_folders_of_the_input_are_left_out_where_the_glob_says_so(folder: str):
    (found,) = forwards(parse_forward("**/versions/*/model.onnx -> models/pulsar"), [f"{folder}versions/2/model.onnx"])
    assert found == Forward(f"{folder}versions/2/model.onnx", "models", "pulsar/versions/2/model.onnx")


def test_a_glob_for_any_depth_matches_whole_names_only():
    paths = ["myversions/2/model.onnx", "versions/2/other.onnx", "versions"]
    assert list(forwards(parse_forward("**/versions/*/model.onnx -> models/pulsar"), paths)) == []


def test_one_file_may_go_to_several_mailboxes():
    rules = parse_forward("* -> a/in; *.h5 -> b/in")
    assert [f.bucket for f in forwards(rules, ["x.h5"])] == ["a", "b"]


def test_the_hop_count_grows_whatever_the_case_of_the_header():
    assert next_hop({"X-Amz-Meta-Dioscar-Hops": "4"}, "s", "b", "k")[HOPS] == "5"


def test_an_endless_chain_is_broken():
    with pytest.raises(InputError, match="the chain is a loop"):
        next_hop({HOPS: str(MAX_HOPS)}, "s", "b", "k")


@given(st.text(min_size=1))
def test_metadata_is_ascii_whatever_the_key(key: str):
    assert all(value.isascii() for value in next_hop({}, "s", "b", key).values())
