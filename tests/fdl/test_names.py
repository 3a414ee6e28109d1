"""Names are what Kubernetes takes; what it would refuse late is refused here, with a name that it takes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fdl.names import (
    check_annotation_name,
    check_bucket_name,
    check_service_name,
    check_variable_name,
    did_you_mean,
    mend_name,
)


@pytest.mark.parametrize("name", ["a", "pulsar-classify", "x9", "a" * 39])
def test_labels_of_at_most_39_characters_are_service_names(name: str) -> None:
    assert check_service_name(name) == name


@pytest.mark.parametrize(
    "name, mend",
    [
        ("Pulsar_Classify", "pulsar-classify"),
        ("pulsar.classify", "pulsar-classify"),
        ("-pulsar", "pulsar"),
        ("pulsar-", "pulsar"),
        ("2mass", "mass"),
        ("größe", "grosse"),
        ("pulsar classify", "pulsar-classify"),
        ("", "my-service"),
        ("脉冲星", "my-service"),
        ("a" * 40, "a" * 39),
        ("pulsar\n", "pulsar"),
    ],
)
def test_other_service_names_are_refused_with_the_mend(name: str, mend: str) -> None:
    with pytest.raises(ValueError, match="is no service name") as caught:
        check_service_name(name)
    assert str(caught.value).endswith(f'write "{mend}"')


@given(st.text())
def test_a_mended_name_is_a_service_name(text: str) -> None:
    assert check_service_name(mend_name(text))


@pytest.mark.parametrize("name", ["ab", "A-b", "a..b", "127.0.0.1", "a" * 64, "a_b"])
def test_bucket_names_follow_s3(name: str) -> None:
    with pytest.raises(ValueError, match="is no bucket name"):
        check_bucket_name(name)


@pytest.mark.parametrize("name", ["dioscar/retries", "a.b-c.example/Name_1", "plain"])
def test_annotation_names_are_kubernetes(name: str) -> None:
    assert check_annotation_name(name) == name


@pytest.mark.parametrize("name", ["", "a b", "/x", "UPPER/x", "a/b/c", "x/" + "n" * 64, "-x"])
def test_other_annotation_names_are_refused_with_one_that_is_right(name: str) -> None:
    with pytest.raises(ValueError, match="is no Kubernetes annotation or label name") as caught:
        check_annotation_name(name)
    check_annotation_name(str(caught.value).rpartition('write "')[2].removesuffix('"'))


@pytest.mark.parametrize("name", ["1ST", "A=B", "", "A B"])
def test_variables_have_names_that_a_shell_can_use(name: str) -> None:
    with pytest.raises(ValueError, match="is no name of an environment variable"):
        check_variable_name(name)


def test_the_nearest_known_word_is_meant_or_none() -> None:
    assert did_you_mean("memmory", ["memory", "name"]) == "memory"
    assert did_you_mean("MEMORY", ["memory", "name"]) == "memory"
    assert did_you_mean("colour", ["memory", "name"]) is None
