"""The parts of VampNet's graphs as ONNX functions: named, readable in a viewer, of standard operators.

onnxruntime puts the bodies in place of the names when it opens a graph, so names cost no time. The products
with large weights stay outside, in the graph itself, where quantisation finds them.
"""

from __future__ import annotations

from typing import Any

from onnx import parser

DOMAIN = "audiogen.vampnet"
OPSET = 23

HEADER = f'<opset_import: ["": {OPSET}], domain: "{DOMAIN}">\n'

CODEBOOK_EMBEDDING = """
CodebookEmbedding (codes, offsets, vectors, weight, bias) => (x)
{
    rows = Add (codes, offsets)
    found = Gather <axis = 0> (vectors, rows)
    by_frame = Transpose <perm = [0, 2, 1, 3]> (found)
    shape = Constant <value_ints = [0, 0, -1]> ()
    latents = Reshape (by_frame, shape)
    projected = MatMul (latents, weight)
    x = Add (projected, bias)
}
"""
"""codes (B, K, T), row offsets (1, K, 1), all codebooks' vectors and masks (K*(N+1), D) -> (B, T, W)"""

POSITION_BIAS = """
PositionBias (codes, table) => (bias)
{
    count = Shape <start = 2, end = 3> (codes)
    frames = Squeeze (count)
    zero = Constant <value_int = 0> ()
    one = Constant <value_int = 1> ()
    places = Range (zero, frames, one)
    first = Constant <value_ints = [0]> ()
    second = Constant <value_ints = [1]> ()
    keys = Unsqueeze (places, first)
    queries = Unsqueeze (places, second)
    relative = Sub (keys, queries)
    rows = Shape <start = 0, end = 1> (table)
    two = Constant <value_int = 2> ()
    size = Squeeze (rows)
    furthest = Div (size, two)
    nearest = Neg (furthest)
    clipped = Clip (relative, nearest, furthest)
    row = Add (clipped, furthest)
    by_head_last = Gather <axis = 0> (table, row)
    by_head = Transpose <perm = [2, 0, 1]> (by_head_last)
    bias = Unsqueeze (by_head, first)
}
"""
"""codes (B, K, T), a row of the heads' biases for each clipped distance (2*F+1, H) -> (1, H, T, T)"""

RMS_NORM = """
RMSNorm <epsilon> (x, weight) => (y)
{
    y = RMSNormalization <axis = -1, epsilon: float = @epsilon> (x, weight)
}
"""

FILM = """
FiLM (x) => (y)
{
    y = Identity (x)
}
"""
"""Modulation by a condition of width 0, as all published networks have it: nothing changes."""

RELATIVE_ATTENTION = """
RelativeAttention <heads> (query, key, value, bias) => (y)
{
    y = Attention <q_num_heads: int = @heads, kv_num_heads: int = @heads> (query, key, value, bias)
}
"""
"""query, key, value (B, T, W), bias (1, H, T, T) added to the scaled scores -> (B, T, W)"""

GATED_GELU = """
GatedGelu (value, gate) => (y)
{
    open = Gelu <approximate = "tanh"> (gate)
    y = Mul (value, open)
}
"""

LOGITS = """
LogitsByCodebook (x, shape) => (logits)
{
    split = Reshape (x, shape)
    logits = Transpose <perm = [0, 2, 1, 3]> (split)
}
"""
"""(B, T, P*N) -> (B, P, T, N)"""

SAMPLE_STEP = """
SampleStep (made, mask, logits, exponential, uniform, masked_next, temperature, mask_temperature)
    => (next, drawn, sure)
{
    by_frame = Transpose <perm = [0, 2, 1, 3]> (logits)
    size = Shape <start = 3, end = 4> (logits)
    minus = Constant <value_ints = [-1]> ()
    batch = Shape <start = 0, end = 1> (logits)
    rows_shape = Concat <axis = 0> (batch, minus, size)
    rows = Reshape (by_frame, rows_shape)
    warm = Div (rows, temperature)
    probability = Softmax <axis = -1> (warm)
    race = Div (probability, exponential)
    winner = ArgMax <axis = -1, keepdims = 1> (race)
    chance = GatherElements <axis = -1> (probability, winner)
    last = Constant <value_ints = [2]> ()
    token = Squeeze (winner, last)
    chance_flat = Squeeze (chance, last)
    made_by_frame = Transpose <perm = [0, 2, 1]> (made)
    sequence_shape = Constant <value_ints = [0, -1]> ()
    sequence = Reshape (made_by_frame, sequence_shape)
    open = Equal (sequence, mask)
    filled = Where (open, token, sequence)
    infinite = Constant <value_float = inf> ()
    zero = Constant <value_float = 0.0> ()
    log_chance = Log (chance_flat)
    sure_flat = Where (open, log_chance, zero)
    known = Where (open, log_chance, infinite)
    log_uniform = Log (uniform)
    minus_log = Neg (log_uniform)
    log_minus_log = Log (minus_log)
    gumbel = Neg (log_minus_log)
    jitter = Mul (mask_temperature, gumbel)
    confidence = Add (known, jitter)
    length = Shape <start = 1, end = 2> (confidence)
    ranked, order = TopK <axis = -1, largest = 0, sorted = 1> (confidence, length)
    cut = GatherElements <axis = -1> (ranked, masked_next)
    unsure = Less (confidence, cut)
    again = Where (unsure, mask, filled)
    by_frame_shape = Shape (made_by_frame)
    again_by_frame = Reshape (again, by_frame_shape)
    drawn_by_frame = Reshape (filled, by_frame_shape)
    sure_by_frame = Reshape (sure_flat, by_frame_shape)
    next = Transpose <perm = [0, 2, 1]> (again_by_frame)
    drawn = Transpose <perm = [0, 2, 1]> (drawn_by_frame)
    sure = Transpose <perm = [0, 2, 1]> (sure_by_frame)
}
"""

NETWORK = (
    CODEBOOK_EMBEDDING,
    POSITION_BIAS,
    RMS_NORM,
    FILM,
    RELATIVE_ATTENTION,
    GATED_GELU,
    LOGITS,
)

NAMES = frozenset(text.split()[0] for text in (*NETWORK, SAMPLE_STEP))


def parse(*texts: str) -> list[Any]:
    """The functions of some texts, as ONNX has them."""
    return [parser.parse_function(HEADER + text.strip()) for text in texts]
