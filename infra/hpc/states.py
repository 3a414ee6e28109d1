"""Every state that Slurm gives a job, by its long and by its compact name, and what it means here.

A state with COMPLETING is one of a job whose processes are still being cleared away: it has not ended, and may even be
put back into the queue. A new state of a later Slurm is `UNKNOWN`, which ends no pod.
"""

from infra.hpc.batch import BatchState

_P, _R, _F, _C = BatchState.PENDING, BatchState.RUNNING, BatchState.FAILED, BatchState.CANCELLED

_TABLE: tuple[tuple[str, str, BatchState], ...] = (
    ("BOOT_FAIL", "BF", BatchState.NODE_FAIL),
    ("CANCELLED", "CA", _C),
    ("COMPLETED", "CD", BatchState.COMPLETED),
    ("COMPLETING", "CG", _R),
    ("CONFIGURING", "CF", _P),  # nodes boot; nothing of the job runs yet
    ("DEADLINE", "DL", BatchState.TIMEOUT),
    ("FAILED", "F", _F),
    ("LAUNCH_FAILED", "LF", _F),
    ("NODE_FAIL", "NF", BatchState.NODE_FAIL),
    ("OUT_OF_MEMORY", "OOM", BatchState.OUT_OF_MEMORY),
    ("PENDING", "PD", _P),
    ("POWER_UP_NODE", "PU", _P),
    ("PREEMPTED", "PR", BatchState.NODE_FAIL),  # its nodes were taken from it: nothing that the job did
    ("RECONFIG_FAIL", "RF", BatchState.NODE_FAIL),
    ("REQUEUED", "RQ", _P),
    ("REQUEUE_FED", "RF", _P),
    ("REQUEUE_HOLD", "RH", _P),
    ("RESIZING", "RS", _R),
    ("RESV_DEL_HOLD", "RD", _P),
    ("REVOKED", "RV", _C),  # it runs on another cluster of the federation, which is not looked at
    ("RUNNING", "R", _R),
    ("SIGNALING", "SI", _R),
    ("SPECIAL_EXIT", "SE", _P),  # requeued and held for a person to look at
    ("STAGE_OUT", "SO", _R),
    ("STOPPED", "ST", _R),  # by SIGSTOP, keeping its cores
    ("SUSPENDED", "S", _R),
    ("TIMEOUT", "TO", BatchState.TIMEOUT),
    ("UPDATE_DB", "UD", BatchState.UNKNOWN),
)
_LONG = {long: state for long, _, state in _TABLE}
_COMPACT = {compact: state for long, compact, state in _TABLE if long not in ("RECONFIG_FAIL", "REQUEUE_FED")}
"""Without the two that share a compact name: whichever it is, it does not end a pod."""


def state_of(name: str) -> BatchState:
    """What Slurm calls a state, in either form, as ours.

    >>> [state_of(name).value for name in ("NODE_FAIL", "CF", "CANCELLED by 1000", "A_LATER_STATE")]
    ['NODE_FAIL', 'PENDING', 'CANCELLED', 'UNKNOWN']
    """
    words = name.split()
    name = words[0].rstrip("+").upper() if words else ""  # accounting says "CANCELLED by 1000"
    return _LONG.get(name) or _COMPACT.get(name) or BatchState.UNKNOWN
