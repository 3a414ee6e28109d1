"""Where the ways differ, each with a name and what OSCAR's supervisor does; docs/contract.md has the same rows."""

DEVIATIONS = {
    "script-beside-input": "a script given in SCRIPT lies in TMP_INPUT_DIR, beside the input",
    "unknown-store": "an event of a store without credentials: the event itself is the input, outputs go nowhere",
    "json-rewritten": "a JSON body is written anew, with other spaces and escapes",
    "json-lists": "a JSON list, number, true, false or null crashes it",
    "garbage": "text that is no base64 is decoded by half, or crashes it",
    "event-key": "all JSON with a key `event` is taken for another cluster's",
    "first-record": "of several records only the first is handled",
    "stage-in-direct": "with file_stage_in, the body of a direct call is lost",
    "base64-log": "the log of an asynchronous call is its output in base64",
    "printed-text": "what is printed loses bytes that are no UTF-8, and carriage returns",
    "foreign-link": "a link in TMP_OUTPUT_DIR is followed wherever it leads",
    "webdav-folders": "a file in a folder below `output` cannot be stored by WebDAV",
    "more-variables": "the script of a dCache event is not told STORAGE_OBJECT_KEY",
    "log-lines": "its own lines stand in the reply of a call, unless `log_level` is CRITICAL",
    "job-log": "its own lines stand in the log of a job, as `log_level` says",
    "run-notification": "a notification that is posted to `/run` is handled",
    "exit-status": "the script's exit status is ignored, outputs are uploaded",
}
