"""Kinds of work of operators and kernels, and the division of a trace's time among them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medscale.base.errors import MedscaleError
from medscale.measure.profiling import spans
from medscale.measure.profiling.kinds import KINDS, RULES, of_kernel, of_operator, of_range
from medscale.measure.profiling.timeline import analyse
from medscale.measure.profiling.trace import events
from synthetic_profiles import CPU_TRACE, GPU_TRACE, event, trace_text

OPERATORS = {
    "aten::conv2d": "convolution",
    "aten::_convolution": "convolution",
    "aten::mkldnn_convolution": "convolution",
    "aten::convolution_backward": "convolution",
    "autograd::engine::evaluate_function: ConvolutionBackward0": "convolution",
    "aten::native_batch_norm": "normalization",
    "aten::native_group_norm_backward": "normalization",
    "NativeBatchNormBackward0": "normalization",
    "aten::addmm": "matmul",
    "aten::mm": "matmul",
    "aten::linear": "matmul",
    "AddmmBackward0": "matmul",
    "aten::_scaled_dot_product_flash_attention": "matmul",
    "aten::copy_": "memory",
    "aten::_to_copy": "memory",
    "aten::cat": "memory",
    "aten::zero_": "memory",
    "aten::max_pool2d_with_indices": "pooling and reduction",
    "aten::mean": "pooling and reduction",
    "aten::sum": "pooling and reduction",
    "aten::argmax": "pooling and reduction",
    "aten::linalg_vector_norm": "pooling and reduction",
    "aten::relu_": "element-wise",
    "aten::silu_backward": "element-wise",
    "aten::add": "element-wise",
    "aten::threshold_backward": "element-wise",
    "aten::_log_softmax": "element-wise",
    "aten::nll_loss_forward": "element-wise",
    "ReluBackward0": "element-wise",
    "aten::_foreach_mul_": "optimizer",
    "aten::_fused_adam_": "optimizer",
    "Optimizer.step#Adam.step": "optimizer",
    "c10d::allreduce_": "communication",
    "gloo:all_reduce": "communication",
    "fsdp::all_gather_copy_in": "communication",
    "nccl:all_reduce": "communication",
    "record_param_comms": "communication",
    "medscale::data": "data",
    "aten::view": "other",
    "aten::as_strided": "other",
    "autograd::engine::evaluate_function: torch::autograd::AccumulateGrad": "other",
    "ProfilerStep#3": "idle",
}


KERNELS = {
    "ncclDevKernel_AllReduce_Sum_f32_RING_LL(ncclDevKernelArgsStorage<4096ul>)": "communication",
    "void at::native::(anonymous)::multi_tensor_apply_kernel<...FusedAdam...>": "optimizer",
    "sm90_xmma_fprop_implicit_gemm_bf16bf16_bf16f32_f32_nhwckrsc_nhwc_tilesize128": "convolution",
    "void cudnn::ops::nchwToNhwcKernel<float>": "other",
    "void cutlass_cudnn::Kernel<cutlass_tensorop_s16816wgrad_optimized>": "convolution",
    "void cudnn::bn_fw_tr_1C11_kernel_NCHW<float, float, 512, true, 1>": "normalization",
    "void at::native::batch_norm_collect_statistics_channels_last_kernel": "normalization",
    "ampere_sgemm_128x64_tn": "matmul",
    "nvjet_tst_128x256_64x4_1x2_h_bz_coopA_TNT": "matmul",
    "Memcpy HtoD (Pinned -> Device)": "memory",
    "Memset (Device)": "memory",
    "void at::native::reduce_kernel<512, 1, ...>": "pooling and reduction",
    "void at::native::vectorized_elementwise_kernel<4, CUDAFunctor_add<float>>": "element-wise",
}


@pytest.mark.parametrize(("name", "kind"), OPERATORS.items())
def test_an_operator_has_the_kind_of_its_work(name: str, kind: str) -> None:
    assert of_operator(name) == kind


@pytest.mark.parametrize(("name", "kind"), KERNELS.items())
def test_a_kernel_has_the_kind_of_its_work(name: str, kind: str) -> None:
    assert of_kernel(name) == kind


def test_each_rule_is_tried_by_the_names_above() -> None:
    ruled = {kind for kind, _, _ in RULES}
    assert ruled <= set(OPERATORS.values())
    assert ruled <= set(KERNELS.values())
    assert {*OPERATORS.values()} == set(KINDS)


def test_only_data_and_optimizer_rule_what_happens_within() -> None:
    assert of_range("medscale::data") == "data"
    assert of_range("Optimizer.zero_grad#Adam.zero_grad") == "optimizer"
    assert of_range("DistributedDataParallel.forward") is None


intervals = st.lists(
    st.tuples(st.integers(0, 40), st.integers(0, 12)).map(lambda p: (p[0], p[0] + p[1])),
    max_size=12,
)


@given(intervals, intervals)
def test_unions_and_overlaps_are_those_of_their_points(
    spans_a: list[tuple[int, int]], spans_b: list[tuple[int, int]]
) -> None:
    def points(pairs: Any) -> np.ndarray:
        at = np.arange(60) + 0.5
        return np.array([any(a < x < b for a, b in pairs) for x in at])

    first, second = (np.array(pairs, dtype=float).reshape(-1, 2) for pairs in (spans_a, spans_b))
    union = spans.union(first)
    assert spans.length(union) == points(spans_a).sum()
    assert (union[1:, 0] >= union[:-1, 1]).all()
    shared_time = spans.overlap(union, spans.union(second)).sum()
    assert shared_time == pytest.approx((points(spans_a) & points(spans_b)).sum())


def test_time_belongs_to_the_innermost() -> None:
    starts, ends = (
        np.array([0.0, 1, 2, 5, 12]),
        np.array([10.0, 4, 3, 11, 14]),
    )  # the fourth reaches beyond the first
    pieces, owners = spans.innermost(starts, ends)
    assert np.bincount(owners, pieces[:, 1] - pieces[:, 0]).tolist() == [2, 2, 1, 5, 2]
    assert (pieces[1:, 0] >= pieces[:-1, 1]).all()
    assert spans.parents(starts, ends).tolist() == [-1, 0, 1, 0, -1]


def test_the_time_of_a_cpu_is_divided_without_gap_or_overlap() -> None:
    line = analyse(events(trace_text(*CPU_TRACE)))
    expected = {
        "data": 10,
        "convolution": 35,
        "element-wise": 5,
        "optimizer": 10,
        "communication": 17,
        "matmul": 10,
    }
    assert line.steps == 2
    assert {
        kind: 1e6 * s for kind, s in line.kinds.items() if s and kind != "idle"
    } == pytest.approx(expected)
    assert 1e6 * line.kinds["idle"] == pytest.approx(200 - sum(expected.values()))
    assert sum(line.kinds.values()) == pytest.approx(line.window_s)
    assert 1e6 * line.communication_s == pytest.approx(35)
    add = line.operators[line.operators["name"] == "aten::add"].set_index("kind")
    assert add["calls"].to_dict() == {"element-wise": 1, "optimizer": 1}
    assert line.operators.set_index("name").loc["aten::conv2d", "seconds"] == pytest.approx(35e-6)
    assert line.operators.set_index("name").loc["aten::mm", "calls"] == 1
    assert line.kernels.empty
    assert line.memory["bytes"].tolist() == [1000, 600]


def test_the_time_of_a_gpu_is_that_of_its_kernels() -> None:
    line = analyse(events(trace_text(*GPU_TRACE)))
    expected = {
        "data": 5 + 5 + 2,  # a kernel, and the device idle while the host gets the batch
        "convolution": 15,  # by the operator that launched it
        "element-wise": 10,  # by its own name: what launched it says nothing
        "communication": 20,  # of 25, of which 5 are hidden
        "memory": 2,
        "optimizer": 10,  # by the range
    }
    assert {
        kind: 1e6 * s for kind, s in line.kinds.items() if s and kind != "idle"
    } == pytest.approx(expected)
    assert sum(line.kinds.values()) == pytest.approx(line.window_s)
    assert 1e6 * line.communication_s == pytest.approx(25)
    assert line.kernels["calls"].sum() == 6
    by_operator = line.operators.set_index("name")["seconds"]
    assert by_operator["aten::cudnn_convolution"] == pytest.approx(15e-6)
    assert by_operator["(not known)"] == pytest.approx(2e-6)
    assert line.memory["bytes"].tolist() == [9000]


@pytest.mark.parametrize("trace", [CPU_TRACE, GPU_TRACE])
def test_the_clock_of_a_trace_may_start_anywhere(trace: tuple[dict[str, Any], ...]) -> None:
    later = [e | {"ts": e["ts"] + 7e8} if "ts" in e else e for e in trace]
    later.append(event("cpu_op", "aten::mm", 7e8 - 50, 7e8 - 10))  # before the window
    first, second = (analyse(events(trace_text(*e))) for e in (trace, later))
    assert second.steps == first.steps
    assert second.window_s == pytest.approx(100e-6 * first.steps)
    assert second.kinds == pytest.approx(first.kinds, abs=1e-12)
    assert second.communication_s == pytest.approx(first.communication_s)
    pd.testing.assert_frame_equal(second.memory, first.memory)
    pd.testing.assert_frame_equal(second.operators, first.operators)


def test_kernels_of_several_streams_are_counted_once() -> None:
    args = {"External id": 1, "device": 0}
    trace_events = (
        event("user_annotation", "ProfilerStep#1", 0, 100),
        event("kernel", "ampere_sgemm", 10, 50, 7, stream=7, **args),
        event("kernel", "elementwise_kernel", 20, 30, 8, stream=8, **args),
        event("kernel", "elementwise_kernel", 40, 70, 8, stream=8, **args),
    )
    line = analyse(events(trace_text(*trace_events)))
    assert 1e6 * line.kinds["matmul"] == pytest.approx(40)
    assert 1e6 * line.kinds["element-wise"] == pytest.approx(20)
    assert 1e6 * line.kinds["idle"] == pytest.approx(40)


def test_a_trace_without_steps_is_refused() -> None:
    with pytest.raises(MedscaleError, match="no step of"):
        analyse(events(trace_text(*CPU_TRACE[4:])))
