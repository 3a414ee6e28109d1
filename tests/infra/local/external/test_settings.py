"""What names another store is read strictly, and said in one sentence where it is wrong."""

import pytest

from infra.local.settings import ExternalSettings, StoreAddress, external_store
from tests.infra.local.external.gateway import KEYS


def test_without_an_address_the_store_is_the_built_in_one():
    assert external_store("", {**KEYS, "DIOSCAR_S3_EXTERNAL": " "}) is None


def test_everything_but_address_and_keys_has_a_default():
    found = external_store("http://127.0.0.1:9000/", KEYS)
    assert found == ExternalSettings(StoreAddress("http://127.0.0.1:9000", "us-east-1", True))
    assert (found.arn, found.reconcile_s) == ("arn:minio:sqs::DIOSCAR:webhook", 60)


def test_the_option_goes_before_the_environment():
    more = {"DIOSCAR_S3_EXTERNAL": "http://other:9000", "MINIO_REGION": "eu-west-1", "MINIO_TLS_VERIFY": "false"}
    found = external_store("https://minio.example.org", {**KEYS, **more, "DIOSCAR_RECONCILE_SECONDS": "5"})
    assert found is not None
    assert found.address == StoreAddress("https://minio.example.org", "eu-west-1", False)
    assert found.reconcile_s == 5
    found = external_store("", {**KEYS, **more})
    assert found is not None
    assert found.address.endpoint == "http://other:9000"


@pytest.mark.parametrize(
    "given, environ, words",
    [
        ("minio:9000", KEYS, '--s3-external: "minio:9000" is no S3 endpoint'),
        ("ftp://minio", KEYS, "is no S3 endpoint"),
        ("http://minio/bucket", KEYS, "is no S3 endpoint"),
        ("http://me:secret@minio", KEYS, "--s3-external: has keys in it"),
        ("http://minio:0", KEYS, "is no S3 endpoint"),
        ("http://minio:nine", KEYS, "is no S3 endpoint"),
        ("", {**KEYS, "DIOSCAR_S3_EXTERNAL": "minio"}, 'DIOSCAR_S3_EXTERNAL: "minio" is no S3 endpoint'),
        ("http://minio", {"MINIO_ACCESS_KEY": "a"}, "MINIO_SECRET_KEY: is not set; http://minio asks for the keys"),
        ("http://minio", {**KEYS, "DIOSCAR_EVENTS_ARN": "DIOSCAR"}, 'DIOSCAR_EVENTS_ARN: "DIOSCAR" is no ARN'),
        ("http://minio", {**KEYS, "DIOSCAR_RECONCILE_SECONDS": "often"}, 'SECONDS: "often" is no number of seconds'),
        ("http://minio", {**KEYS, "DIOSCAR_RECONCILE_SECONDS": "0"}, "between 0.1 and 86400"),
        ("http://minio", {**KEYS, "DIOSCAR_RECONCILE_SECONDS": "nan"}, "between 0.1 and 86400"),
    ],
)
def test_a_wrong_setting_is_named(given: str, environ: dict[str, str], words: str):
    with pytest.raises(ValueError) as caught:
        external_store(given, environ)
    assert words in str(caught.value)
    assert "me:secret" not in str(caught.value)
