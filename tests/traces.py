"""The first line of a trace, for tests that write or read one."""

from runner.run_folder.trace import BITS, VERSION

ABOUT = {
    "trace": VERSION,
    "workers": 3,
    "batch_size": 4,
    "samples": 12,
    "dataset_fingerprint": "ab",
    "epochs": 1.0,
    "pull_bytes": 8,
    "push_bytes": 8,
    "gradients": 1.0,
    **dict.fromkeys(BITS, "x"),
}
