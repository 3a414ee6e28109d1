"""Buckets, and what they can and cannot be configured for."""

import contextlib

import pytest
from botocore.exceptions import ClientError

from tests.infra.local.s3.helpers import boto, code

ARN = "arn:minio:sqs:us-east-1:pulsar-classify:webhook"


def test_a_bucket_comes_and_goes(s3, minio, endpoint):
    s3.create_bucket(Bucket="comes-and-goes")
    assert "comes-and-goes" in [bucket["Name"] for bucket in s3.list_buckets()["Buckets"]]
    assert "comes-and-goes" in [bucket.name for bucket in minio.list_buckets()]
    assert s3.head_bucket(Bucket="comes-and-goes")["ResponseMetadata"]["HTTPStatusCode"] == 200
    assert minio.bucket_exists("comes-and-goes") and not minio.bucket_exists("never-was")
    assert s3.get_bucket_location(Bucket="comes-and-goes")["LocationConstraint"] is None
    with pytest.raises(ClientError) as caught:
        s3.create_bucket(Bucket="comes-and-goes")
    assert code(caught) == ("BucketAlreadyOwnedByYou", 409)

    s3.put_object(Bucket="comes-and-goes", Key="k", Body=b"x")
    with pytest.raises(ClientError) as caught:
        s3.delete_bucket(Bucket="comes-and-goes")
    assert code(caught) == ("BucketNotEmpty", 409)
    s3.delete_object(Bucket="comes-and-goes", Key="k")
    s3.delete_bucket(Bucket="comes-and-goes")
    with pytest.raises(ClientError) as caught:
        s3.list_objects_v2(Bucket="comes-and-goes")
    assert code(caught) == ("NoSuchBucket", 404)


def test_a_region_is_taken_as_it_comes(s3):
    s3.create_bucket(Bucket="in-some-region", CreateBucketConfiguration={"LocationConstraint": "eu-west-3"})
    s3.delete_bucket(Bucket="in-some-region")


@pytest.mark.parametrize("name", ["ab", "Upper", "under_score", "-dash", "192.168.1.1", "a..b", "x" * 64])
def test_a_name_that_s3_does_not_allow(s3, name):
    with pytest.raises(ClientError) as caught:
        s3.create_bucket(Bucket=name)
    assert code(caught) == ("InvalidBucketName", 400)


def test_a_full_bucket_goes_by_force(endpoint, s3):
    s3.create_bucket(Bucket="full")
    for number in range(5):
        s3.put_object(Bucket="full", Key=f"k{number}", Body=b"x" * 100_000)
    before = len(endpoint.files())
    with contextlib.closing(boto(endpoint.url)) as other:
        force = {"x-minio-force-delete": "true"}
        other.meta.events.register("before-call.s3.DeleteBucket", lambda params, **_: params["headers"].update(force))
        other.delete_bucket(Bucket="full")
    s3.create_bucket(Bucket="full")

    assert "Contents" not in s3.list_objects_v2(Bucket="full")
    assert len(endpoint.files()) == before - 5


def test_bucket_tags(s3, bucket):
    with pytest.raises(ClientError) as caught:
        s3.get_bucket_tagging(Bucket=bucket)
    assert code(caught) == ("NoSuchTagSet", 404)
    tags = [{"Key": "owner", "Value": "oscar"}, {"Key": "from_service", "Value": "x"}]
    s3.put_bucket_tagging(Bucket=bucket, Tagging={"TagSet": tags})
    assert s3.get_bucket_tagging(Bucket=bucket)["TagSet"] == tags
    s3.delete_bucket_tagging(Bucket=bucket)


def test_what_is_not_there_is_said_as_clients_expect(s3, bucket):
    assert "Status" not in s3.get_bucket_versioning(Bucket=bucket)
    assert s3.get_bucket_acl(Bucket=bucket)["Grants"][0]["Permission"] == "FULL_CONTROL"
    assert s3.get_bucket_request_payment(Bucket=bucket)["Payer"] == "BucketOwner"
    assert s3.get_bucket_policy_status(Bucket=bucket)["PolicyStatus"]["IsPublic"] is False
    for call, expected in (
        (s3.get_bucket_policy, "NoSuchBucketPolicy"),
        (s3.get_bucket_cors, "NoSuchCORSConfiguration"),
        (s3.get_bucket_lifecycle_configuration, "NoSuchLifecycleConfiguration"),
        (s3.get_bucket_encryption, "ServerSideEncryptionConfigurationNotFoundError"),
        (s3.get_object_lock_configuration, "ObjectLockConfigurationNotFoundError"),
    ):
        with pytest.raises(ClientError) as caught:
            call(Bucket=bucket)
        assert code(caught) == (expected, 404)


def test_what_cannot_be_done_is_refused_not_passed_over(s3, bucket):
    with pytest.raises(ClientError) as caught:
        s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    assert code(caught) == ("NotImplemented", 501)
    with pytest.raises(ClientError) as caught:
        s3.put_object(Bucket=bucket, Key="k", Body=b"x", ServerSideEncryption="AES256")
    assert code(caught) == ("NotImplemented", 501)
    with pytest.raises(ClientError) as caught:
        s3.get_object(Bucket=bucket, Key="k", VersionId="abc")
    assert code(caught) == ("NoSuchVersion", 404)


def test_notifications_are_kept_and_given_back(s3, minio, bucket):
    wanted = [
        {
            "Id": "one",
            "QueueArn": ARN,
            "Events": ["s3:ObjectCreated:*"],
            "Filter": {
                "Key": {"FilterRules": [{"Name": "prefix", "Value": "in/"}, {"Name": "suffix", "Value": ".fil"}]}
            },
        },
        {"Id": "two", "QueueArn": ARN, "Events": ["s3:ObjectCreated:Put", "s3:ObjectRemoved:Delete"]},
    ]
    s3.put_bucket_notification_configuration(Bucket=bucket, NotificationConfiguration={"QueueConfigurations": wanted})

    found = s3.get_bucket_notification_configuration(Bucket=bucket)["QueueConfigurations"]
    assert found == wanted
    assert [one.queue for one in minio.get_bucket_notification(bucket).queue_config_list] == [ARN, ARN]
    minio.delete_bucket_notification(bucket)
    assert "QueueConfigurations" not in s3.get_bucket_notification_configuration(Bucket=bucket)


def test_a_notification_set_by_the_minio_client(minio, s3, bucket):
    from minio.notificationconfig import NotificationConfig, PrefixFilterRule, QueueConfig

    config = NotificationConfig(
        queue_config_list=[
            QueueConfig(
                queue=ARN, events=["s3:ObjectCreated:*"], config_id="1", prefix_filter_rule=PrefixFilterRule("in/")
            )
        ]
    )
    minio.set_bucket_notification(bucket, config)

    (found,) = s3.get_bucket_notification_configuration(Bucket=bucket)["QueueConfigurations"]
    assert found["Filter"]["Key"]["FilterRules"] == [{"Name": "prefix", "Value": "in/"}]


@pytest.mark.parametrize(
    "kind, arn, events, message",
    [
        ("Queue", "arn:aws:sqs:us-east-1:1:q", ["s3:ObjectCreated:*"], "A specified destination ARN does not exist"),
        ("Topic", ARN, ["s3:ObjectCreated:*"], "A specified destination ARN does not exist"),
        ("Queue", ARN, ["s3:ObjectAccessed:Get"], "A specified event is not supported"),
    ],
)
def test_a_notification_that_could_never_come_is_refused(s3, bucket, kind, arn, events, message):
    wanted = {f"{kind}Configurations": [{f"{kind}Arn": arn, "Events": events}]}

    with pytest.raises(ClientError, match=message) as caught:
        s3.put_bucket_notification_configuration(Bucket=bucket, NotificationConfiguration=wanted)
    assert code(caught) == ("InvalidArgument", 400)
