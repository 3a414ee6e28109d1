"""Where the embedded cluster and MinIO's own code base are known to differ.

What a test asserts is what S3 (or, beyond S3, MinIO) does. Where one of the two does something else the test must fail,
so that an entry that has become wrong is noticed.
"""

BUILT_IN, MINIO = "built-in", "minio"

DIFFERENCES = {
    (MINIO, "test_encoding_and_language_are_kept"): "the gateway forgets both headers",
    (MINIO, "test_odd_keys[double-slash]"): "the gateway is a file system: a//b is a/b",
    (MINIO, "test_odd_keys[first-slash]"): "the gateway is a file system: /a is a",
    (MINIO, "test_odd_keys[dot-dot]"): "MinIO refuses .. in a key",
    (MINIO, "test_odd_keys[dot]"): "MinIO refuses . in a key",
    (MINIO, "test_a_key_that_is_too_long"): "the gateway is a file system: a path may be longer",
    (MINIO, "test_a_key_may_be_the_folder_of_another"): "the gateway is a file system: a file is no folder",
    (MINIO, "test_a_page_has_a_thousand_keys_at_most"): "this MinIO lists as many as asked for",
    (MINIO, "test_parts_that_are_too_small"): "the gateway takes parts of any size",
    (MINIO, "test_a_part_is_read_by_its_number"): "the gateway forgets the parts of an upload",
    (MINIO, "test_conditional_writes"): "this MinIO is older than conditional writes and takes no notice",
    (MINIO, "test_a_checksum_is_verified_and_kept"): "this MinIO is older than S3's checksums and takes no notice",
    (MINIO, "test_no_folder_is_left_where_many_objects_were_deleted"): "the gateway keeps the folders of a batch",
    (MINIO, "test_many_objects_are_deleted_at_once_as_boto3_asks"): "this MinIO wants Content-MD5, boto3 sends a CRC",
    (MINIO, "test_buckets_are_not_versioned"): "the gateway does not answer",
    (MINIO, "test_what_is_not_configured_says_so[get_bucket_lifecycle_configuration]"): "the gateway does not answer",
    (MINIO, "test_what_is_not_configured_says_so[get_object_lock_configuration]"): "the gateway does not answer",
    (MINIO, "test_what_is_not_configured_says_so[get_bucket_replication]"): "the gateway does not answer",
    (MINIO, "test_the_region_is_the_first_one"): "MinIO names a region that is set, S3 names the first one never",
    (MINIO, "test_each_of_many_deletions_is_told"): "the gateway tells nothing of a batch",
    (BUILT_IN, "test_names_in_a_listing_are_encoded_if_asked"): "a blank is %20, which more clients decode than +",
}
"""What a test finds in one of the two, and why."""
EVENT_DIFFERENCES = {
    "Records[].responseElements.content-length": "not sent here",
    "Records[].responseElements.x-amz-id-2": "this MinIO is older than it",
    "Records[].responseElements.x-minio-deployment-id": "the gateway has none",
    **{
        f"{kind}: Records[].s3.object.contentType": "the gateway does not send it, MinIO itself does"
        for kind in ("put", "empty", "copied", "in parts")
    },
    "in parts: Records[].s3.object.userMetadata.content-type": "the gateway forgets it",
    "copied: Records[].s3.object.userMetadata.X-Amz-Meta-Dioscar-Hops": "the gateway names it in lower case",
    "copied: Records[].s3.object.userMetadata.x-amz-meta-dioscar-hops": "the gateway names it in lower case",
}
"""Fields that are in one of two events only, or not the same, and why: in every event, or in one kind."""
OF_THE_MOMENT = frozenset(
    [
        "Records[].eventTime",
        "Records[].responseElements.x-amz-request-id",
        "Records[].responseElements.x-minio-origin-endpoint",
        "Records[].s3.object.sequencer",
    ]
)
