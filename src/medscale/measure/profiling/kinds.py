"""What kind of work an operator or a GPU kernel does: one table of rules, the first that matches its name holds."""

from __future__ import annotations

import re
from functools import cache

DATA = "medscale::data"  # the annotation around getting the next batch
KINDS = (
    "convolution",
    "matmul",
    "normalization",
    "element-wise",
    "pooling and reduction",
    "memory",
    "optimizer",
    "communication",
    "data",
    "other",
    "idle",
)

# Kind, pattern of operators (PyTorch's names without namespace, the autograd engine's prefix and outer underscores),
# pattern of GPU kernels. Kernels are judged by the operator that launched them where the trace names one that says
# more than "other", so that their own names decide only for the rest.
RULES: tuple[tuple[str, str, str], ...] = (
    (
        "communication",
        r"^(c10d|gloo|nccl|fsdp|c10d_functional|symm_mem)::?|^(record_param_comms|nccl)",
        r"^nccl",
    ),
    ("optimizer", r"^Optimizer\.|^(foreach|fused)_", r"multi_tensor_apply|fused_adam"),
    (
        "convolution",
        r"conv(olution|\d|_|$|Backward)|^slow_conv|^thnn_conv",
        r"conv|[fd]gr?prop|fprop|dgrad|wgrad|winograd|implicit_gemm",
    ),
    (
        "normalization",
        r"(batch|layer|group|instance|rms)_?norm",
        r"(batch|layer|group|instance|rms)_?norm|\bbn_(fw|bw)|BatchNorm|GroupNorm|LayerNorm|RowwiseMoments",
    ),
    (
        "matmul",
        r"^(mm|bmm|addmm|addmv|mv|dot|baddbmm|addbmm|matmul|linear|mkldnn_linear|einsum|scaled_dot_product)|"
        r"^(Mm|Bmm|Addmm|Linear)\w*Backward",
        r"gemm|gemv|cutlass|cublas|nvjet|dot_kernel|splitK",
    ),
    (
        "memory",
        r"^(copy|to_copy|to|clone|contiguous|cat|stack|empty|new|zeros|zero|ones|fill|full|resize|pin_memory|pad|"
        r"constant_pad|Memcpy|Memset|index|index_put|scalar_tensor|arange|item|local_scalar_dense|gather)(_|$|\.)|"
        r"^(ToCopy|Copy|Cat|Clone|Index)\w*Backward",
        r"^Mem(cpy|set)|copy_kernel|CatArray|FillFunctor|direct_copy",
    ),
    (
        "pooling and reduction",
        r"pool|^(sum|mean|var|std|amax|amin|max|min|argmax|argmin|norm|linalg_vector_norm|all|any|count_nonzero|topk|"
        r"sort|cumsum|logsumexp|bincount)(_|$|\.)|^(Sum|Mean|Max|Min)\w*Backward",
        r"pool|reduce_kernel|softmax_warp|cub::|radix",
    ),
    (
        "element-wise",
        r"^(add|sub|rsub|mul|div|neg|abs|exp|expm1|log|log1p|sqrt|rsqrt|pow|square|relu|threshold|leaky_relu|elu|gelu|silu|"
        r"sigmoid|tanh|hardtanh|hardswish|hardsigmoid|clamp|where|masked_fill|dropout|native_dropout|bernoulli|lerp|"
        r"addcmul|addcdiv|softmax|log_softmax|nll_loss|cross_entropy|binary_cross_entropy|smooth_l1|maximum|minimum|"
        r"eq|ne|lt|le|gt|ge|isfinite|isnan|bitwise|logical|round|floor|ceil|erf|atan|sign|reciprocal|normal|uniform|"
        r"random|upsample|mse_loss)(_|\d|$|\.)|^(Add|Sub|Mul|Div|Pow|Relu|Silu|Gelu|Sigmoid|Tanh|Threshold|Dropout|Nll|"
        r"LogSoftmax|Softmax|Hard|Clamp|Where)\w*Backward",
        r"elementwise|pointwise|softmax|dropout|nll_loss|upsample|triton_poi",
    ),
)
_OPERATORS = tuple((kind, re.compile(pattern, re.I)) for kind, pattern, _ in RULES)
_KERNELS = tuple((kind, re.compile(pattern, re.I)) for kind, _, pattern in RULES)
_ENGINE = "autograd::engine::evaluate_function: "


@cache
def of_operator(name: str) -> str:
    """The kind of an operator or annotation as a trace names it, such as ``aten::convolution_backward``."""
    if name == DATA:
        return "data"
    if name.startswith("ProfilerStep#"):
        return "idle"
    plain = name.removeprefix(_ENGINE).removeprefix("aten::").strip("_")
    return next((kind for kind, pattern in _OPERATORS if pattern.search(plain)), "other")


@cache
def of_kernel(name: str) -> str:
    """The kind of a GPU kernel, copy or fill by its own name."""
    return next((kind for kind, pattern in _KERNELS if pattern.search(name)), "other")


def is_exchange(name: str) -> bool:
    """Whether an event of the host is an exchange under way, from its call to its end, whatever its thread does."""
    return name.startswith(("gloo:", "nccl:"))


def of_range(name: str) -> str | None:
    """The kind that an annotated range gives to all that happens in it; None where it gives none."""
    return of_operator(name) if name == DATA or name.startswith("Optimizer.") else None
