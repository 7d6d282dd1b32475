"""DCGM's text: several GPUs, other pods' GPUs, MIG slices, and what is no share."""

import pytest

from headrace.engines.dcgm import memory_bandwidth_ratio

PAGE = b"""\
# HELP DCGM_FI_DEV_SM_CLOCK SM clock frequency (in MHz).
# TYPE DCGM_FI_DEV_SM_CLOCK gauge
DCGM_FI_DEV_SM_CLOCK{gpu="0",UUID="GPU-a",device="nvidia0",Hostname="n1"} 1980
# HELP DCGM_FI_PROF_DRAM_ACTIVE Ratio of cycles the device memory interface is active (in %).
# TYPE DCGM_FI_PROF_DRAM_ACTIVE gauge
DCGM_FI_PROF_DRAM_ACTIVE{gpu="0",UUID="GPU-a",container="vllm",pod="llama-0"} 0.60
DCGM_FI_PROF_DRAM_ACTIVE{gpu="1",UUID="GPU-b",container="vllm",pod="llama-0"} 0.80
DCGM_FI_PROF_DRAM_ACTIVE{gpu="2",UUID="GPU-c",container="vllm",pod="qwen-0"} 0.10
DCGM_FI_PROF_DRAM_ACTIVE{gpu="3",UUID="GPU-d",GPU_I_ID="1",pod="say \\"hi\\", 2"} 0.30
DCGM_FI_PROF_DRAM_ACTIVE{gpu="4",UUID="GPU-e"} 140737488355328
DCGM_FI_PROF_DRAM_ACTIVE{gpu="5",UUID="GPU-f"} NaN
DCGM_FI_PROF_DRAM_ACTIVE{gpu="6",UUID="GPU-g"} +Inf
DCGM_FI_PROF_DRAM_ACTIVE{gpu="7",UUID="GPU-h"} -0.5
DCGM_FI_PROF_DRAM_ACTIVE{gpu="8",UUID="GPU-i"
"""


@pytest.mark.parametrize(
    ("labels", "ratio"),
    [
        ((), 0.45),
        (("pod=llama-0",), 0.7),
        (("container=vllm",), 0.5),
        (("container=vllm", "pod=qwen-0"), 0.1),
        (("GPU_I_ID=1",), 0.3),
        (('pod=say "hi", 2',), 0.3),
        (("gpu=1",), 0.8),
        (("gpu=4",), None),
        (("gpu=5",), None),
        (("gpu=7",), None),
        (("pod=nobody",), None),
    ],
)
def test_the_mean_over_the_gpus_that_are_meant(labels: tuple[str, ...], ratio: float | None):
    told = memory_bandwidth_ratio(PAGE, labels)
    assert told == (None if ratio is None else pytest.approx(ratio))


@pytest.mark.parametrize("page", [b"", b"<html>", b"\xff\xfe", b"DCGM_FI_PROF_DRAM_ACTIVE_X 0.5\n"])
def test_a_page_that_does_not_tell(page: bytes):
    assert memory_bandwidth_ratio(page) is None
