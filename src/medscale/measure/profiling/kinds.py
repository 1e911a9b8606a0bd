"""The kind of work of operators and GPU kernels: the first rule that matches the name decides."""

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

# Each rule has a kind, a pattern for operators and a pattern for GPU kernels. Operators have
# PyTorch's names without namespace, prefix of the autograd engine and outer underscores. A kernel
# takes the kind of the operator that launched it. If the trace names no operator, or one of kind
# "other", the kernel's own name decides.
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
        r"(batch|layer|group|instance|rms)_?norm|\bbn_(fw|bw)|BatchNorm|GroupNorm|LayerNorm|"
        r"RowwiseMoments",
    ),
    (
        "matmul",
        r"^(mm|bmm|addmm|addmv|mv|dot|baddbmm|addbmm|matmul|linear|mkldnn_linear|einsum|"
        r"scaled_dot_product)|^(Mm|Bmm|Addmm|Linear)\w*Backward",
        r"gemm|gemv|cutlass|cublas|nvjet|dot_kernel|splitK",
    ),
    (
        "memory",
        r"^(copy|to_copy|to|clone|contiguous|cat|stack|empty|new|zeros|zero|ones|fill|full|resize|"
        r"pin_memory|pad|constant_pad|Memcpy|Memset|index|index_put|scalar_tensor|arange|item|"
        r"local_scalar_dense|gather)(_|$|\.)|^(ToCopy|Copy|Cat|Clone|Index)\w*Backward",
        r"^Mem(cpy|set)|copy_kernel|CatArray|FillFunctor|direct_copy",
    ),
    (
        "pooling and reduction",
        r"pool|^(sum|mean|var|std|amax|amin|max|min|argmax|argmin|norm|linalg_vector_norm|all|any|"
        r"count_nonzero|topk|sort|cumsum|logsumexp|bincount)(_|$|\.)"
        r"|^(Sum|Mean|Max|Min)\w*Backward",
        r"pool|reduce_kernel|softmax_warp|cub::|radix",
    ),
    (
        "element-wise",
        r"^(add|sub|rsub|mul|div|neg|abs|exp|expm1|log|log1p|sqrt|rsqrt|pow|square|relu|threshold|"
        r"leaky_relu|elu|gelu|silu|sigmoid|tanh|hardtanh|hardswish|hardsigmoid|clamp|where|"
        r"masked_fill|dropout|native_dropout|bernoulli|lerp|addcmul|addcdiv|softmax|log_softmax|"
        r"nll_loss|cross_entropy|binary_cross_entropy|smooth_l1|maximum|minimum|eq|ne|lt|le|gt|ge|"
        r"isfinite|isnan|bitwise|logical|round|floor|ceil|erf|atan|sign|reciprocal|normal|uniform|"
        r"random|upsample|mse_loss)(_|\d|$|\.)|^(Add|Sub|Mul|Div|Pow|Relu|Silu|Gelu|Sigmoid|Tanh|"
        r"Threshold|Dropout|Nll|LogSoftmax|Softmax|Hard|Clamp|Where)\w*Backward",
        r"elementwise|pointwise|softmax|dropout|nll_loss|upsample|triton_poi",
    ),
)
_OPERATORS = tuple((kind, re.compile(pattern, re.I)) for kind, pattern, _ in RULES)
_KERNELS = tuple((kind, re.compile(pattern, re.I)) for kind, _, pattern in RULES)
_ENGINE = "autograd::engine::evaluate_function: "


@cache
def of_operator(name: str) -> str:
    """Return the kind of an operator or annotation in a trace: ``aten::convolution_backward``."""
    if name == DATA:
        return "data"
    if name.startswith("ProfilerStep#"):
        return "idle"
    plain = name.removeprefix(_ENGINE).removeprefix("aten::").strip("_")
    return next((kind for kind, pattern in _OPERATORS if pattern.search(plain)), "other")


@cache
def of_kernel(name: str) -> str:
    """Return the kind of a GPU kernel, copy or fill by its own name."""
    return next((kind for kind, pattern in _KERNELS if pattern.search(name)), "other")


def is_exchange(name: str) -> bool:
    """Return whether an event of the host spans an exchange from its call to its end.

    The thread may do other work during that time.
    """
    return name.startswith(("gloo:", "nccl:"))


def of_range(name: str) -> str | None:
    """Return the kind that an annotated range gives to all events within it, or None."""
    return of_operator(name) if name == DATA or name.startswith("Optimizer.") else None
