"""What an emulated module computes in place of torch's functions, with the same arguments."""

from __future__ import annotations

import itertools
import math
import string
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from lowprec.torch.products import How, operand, outcome, rounded_both_ways, sums

functional = torch.nn.functional


# Products ------------------------------------------------------------------------------------


def linear(how: How, input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:  # noqa: A002
    """Return x · Wᵀ + b along the last axis."""
    x, w = operand(input, how.left, how), operand(weight, how.right, how)
    b = None if bias is None else operand(bias, how.right, how)
    z = sums(x.flatten(0, -2) if x.ndim > 1 else x[None], w.t(), how)
    y = outcome(z, b, how)
    return y.reshape(*input.shape[:-1], weight.shape[0])


def matmul(how: How, input: Tensor, other: Tensor) -> Tensor:  # noqa: A002
    """Multiply vectors, matrices or stacks of them, as `torch.matmul` does."""
    a, b = operand(input, how.left, how), operand(other, how.right, how)
    left, right = (a[None] if a.ndim == 1 else a), (b[:, None] if b.ndim == 1 else b)
    if right.ndim == 2 and left.ndim > 2:  # one product of many rows
        z = sums(left.reshape(-1, left.shape[-1]), right, how)
        z = z.reshape(*left.shape[:-1], right.shape[-1])
    else:
        z = sums(left, right, how)
    if a.ndim == 1:
        z = z.squeeze(-2)
    return outcome(z.squeeze(-1) if b.ndim == 1 else z, None, how)


def addmm(
    how: How,
    input: Tensor,  # noqa: A002
    mat1: Tensor,
    mat2: Tensor,
    *,
    beta: float = 1,
    alpha: float = 1,
) -> Tensor:
    """Return beta · input + alpha · mat1 · mat2, rounded once after the float32 sum."""
    a, b = operand(mat1, how.left, how), operand(mat2, how.right, how)
    added = operand(input, how.right, how)
    z = sums(a, b, how)
    z = z if alpha == 1 else alpha * z
    return outcome(z + (added if beta == 1 else beta * added), None, how)


def addmm_(how: How, input: Tensor, *matrices: Tensor, **factors: float) -> Tensor:  # noqa: A002
    """Do the same in place."""
    return input.copy_(addmm(how, input, *matrices, **factors))


def einsum(how: How, equation: str, *operands: Any) -> Tensor | None:
    """Contract operands two by two, from the left; None for what is no such product."""
    tensors = list(
        operands[0] if len(operands) == 1 and isinstance(operands[0], list | tuple) else operands
    )
    if not isinstance(equation, str) or len(tensors) < 2:
        return None
    if "..." in equation:
        equation, tensors = _without_ellipsis(equation, tensors)
    left, _, result = equation.replace(" ", "").partition("->")
    terms = left.split(",")
    if "->" not in equation:
        letters = sorted(set(left.replace(",", "")))
        result = "".join(c for c in letters if left.count(c) == 1)
    if any(len(set(term)) < len(term) for term in terms):
        return None
    term, tensor = terms[0], tensors[0]
    for place in range(1, len(terms)):
        kept = set(result).union(*terms[place + 1 :])
        term, tensor = _contract(how, term, tensor, terms[place], tensors[place], kept)
    if any(c not in result for c in term):
        tensor = tensor.sum([i for i, c in enumerate(term) if c not in result])
        term = "".join(c for c in term if c in result)
    return tensor.permute([term.index(c) for c in result])


def _without_ellipsis(equation: str, tensors: list[Tensor]) -> tuple[str, list[Tensor]]:
    """Spell the axes of an ellipsis with letters that are free, after broadcasting them."""
    left, arrow, result = equation.replace(" ", "").partition("->")
    terms = left.split(",")
    counts = [
        t.ndim - len(term.replace("...", "")) if "..." in term else 0
        for term, t in zip(terms, tensors, strict=True)
    ]
    letters = [c for c in string.ascii_letters if c not in equation][: max(counts)]
    shapes, starts = [], []
    for term, t, count in zip(terms, tensors, counts, strict=True):
        starts.append(max(term.find("..."), 0))
        shapes.append(t.shape[starts[-1] : starts[-1] + count])
    common = torch.broadcast_shapes(*shapes)
    spelled, wide = [], []
    for term, t, count, start in zip(terms, tensors, counts, starts, strict=True):
        own = common[len(common) - count :]
        wide.append(t.expand(*t.shape[:start], *own, *t.shape[start + count :]))
        spelled.append(term.replace("...", "".join(letters[len(letters) - count :])))
    named = "".join(letters)
    if not arrow:
        single = sorted(c for c in set(left) if c.isalpha() and left.count(c) == 1)
        return f"{','.join(spelled)}->{named}{''.join(single)}", wide
    return f"{','.join(spelled)}->{result.replace('...', named)}", wide


def _contract(
    how: How, left: str, a: Tensor, right: str, b: Tensor, kept: set[str]
) -> tuple[str, Tensor]:
    """Contract two operands; letters in both that are kept are stacks of matrices."""
    stack = [c for c in left if c in right and c in kept]
    inner = [c for c in left if c in right and c not in kept]
    rows, columns = ([c for c in s if c not in t] for s, t in ((left, right), (right, left)))
    size = {c: n for s, t in ((left, a), (right, b)) for c, n in zip(s, t.shape, strict=True)}

    def arranged(term: str, x: Tensor, *groups: list[str]) -> Tensor:
        x = x.permute([term.index(c) for group in groups for c in group])
        return x.reshape([math.prod(size[c] for c in group) for group in groups])

    x = arranged(left, operand(a, how.left, how), stack, rows, inner)
    y = arranged(right, operand(b, how.right, how), stack, inner, columns)
    found = [*stack, *rows, *columns]
    z = outcome(sums(x, y, how), None, how)
    return "".join(found), z.reshape([size[c] for c in found])


# Convolutions --------------------------------------------------------------------------------


def _per_axis(value: Any, axes: int) -> tuple[int, ...]:
    values = tuple(value) if isinstance(value, Sequence) else (value,)
    return values * axes if len(values) == 1 else values


def _layout(*tensors: Tensor) -> torch.memory_format:
    """Return the memory format of a convolution's result: channels last where an operand has it."""
    if not torch.compiler.is_compiling() and torch._C._functorch.peek_interpreter_stack():
        return torch.contiguous_format  # vmap answers no question about any other
    for x in tensors:
        last = {4: torch.channels_last, 5: torch.channels_last_3d}.get(x.ndim)
        if last and x.is_contiguous(memory_format=last) and not x.is_contiguous():
            return last
    return torch.contiguous_format


def convolution(
    how: How,
    input: Tensor,  # noqa: A002
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Tensor:
    """Convolve along the axes of the kernel: windows are unfolded, then multiplied."""
    axes = weight.ndim - 2
    if input.ndim == axes + 1:  # without a batch
        y = convolution(how, input[None], weight, bias, stride, padding, dilation, groups)
        return y[0]
    stride, dilation = _per_axis(stride, axes), _per_axis(dilation, axes)
    x, w = operand(input, how.left, how), operand(weight, how.right, how)
    b = None if bias is None else operand(bias, how.right, how)
    kernel = weight.shape[2:]
    if padding == "same":
        totals = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
        sides = [(total // 2, total - total // 2) for total in totals]
    else:
        sides = [(p, p) for p in _per_axis(0 if padding == "valid" else padding, axes)]
    x = functional.pad(x, [n for side in reversed(sides) for n in side])
    return _windowed(how, x, w, b, stride, dilation, groups, _layout(input, weight))


def _windowed(
    how: How,
    x: Tensor,
    w: Tensor,
    b: Tensor | None,
    stride: tuple[int, ...],
    dilation: tuple[int, ...],
    groups: int,
    layout: torch.memory_format,
) -> Tensor:
    kernel = w.shape[2:]
    shape = [
        (n - d * (k - 1) - 1) // s + 1
        for n, k, s, d in zip(x.shape[2:], kernel, stride, dilation, strict=True)
    ]
    windows = []
    for offset in itertools.product(*map(range, kernel)):
        index = [
            slice(o * d, o * d + s * (n - 1) + 1, s)
            for o, d, s, n in zip(offset, dilation, stride, shape, strict=True)
        ]
        windows.append(x[(slice(None), slice(None), *index)])
    columns = torch.stack(windows, 2)  # (N, C, windows, *shape): channels first, then the window
    n, channels, size = columns.shape[:3]
    columns = columns.reshape(n, groups, channels // groups * size, math.prod(shape))
    columns = columns.permute(1, 2, 0, 3).flatten(2)  # (groups, terms, N · places)
    rows = w.reshape(groups, w.shape[0] // groups, -1)
    z = sums(rows, columns, how)
    z = z.reshape(w.shape[0], n, *shape).transpose(0, 1).contiguous(memory_format=layout)
    return outcome(z, b, how, dim=1)


def transposed_convolution(
    how: How,
    input: Tensor,  # noqa: A002
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
) -> Tensor:
    """Convolve a tensor, spread by the stride, with the kernel turned round."""
    axes = weight.ndim - 2
    if input.ndim == axes + 1:
        rest = (stride, padding, output_padding, groups, dilation)
        return transposed_convolution(how, input[None], weight, bias, *rest)[0]
    stride, dilation = _per_axis(stride, axes), _per_axis(dilation, axes)
    padding, extra = _per_axis(padding, axes), _per_axis(output_padding, axes)
    x, w = operand(input, how.left, how), operand(weight, how.right, how)
    b = None if bias is None else operand(bias, how.right, how)
    spread = x.new_zeros(
        [*x.shape[:2], *((n - 1) * s + 1 for n, s in zip(x.shape[2:], stride, strict=True))]
    )
    spread[(..., *(slice(None, None, s) for s in stride))] = x
    sides = []
    for k, d, p, e in zip(weight.shape[2:], dilation, padding, extra, strict=True):
        sides.append((d * (k - 1) - p, d * (k - 1) - p + e))
    spread = functional.pad(spread, [n for side in reversed(sides) for n in side])
    inputs, outputs = weight.shape[0] // groups, weight.shape[1]
    turned = w.flip(list(range(2, w.ndim))).reshape(groups, inputs, outputs, *weight.shape[2:])
    turned = turned.transpose(1, 2).reshape(groups * outputs, inputs, *weight.shape[2:])
    layout = _layout(input, weight)
    return _windowed(how, spread, turned, b, (1,) * axes, dilation, groups, layout)


# Attention -----------------------------------------------------------------------------------


def attention(
    how: How,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """Return softmax(q · kᵀ) · v: scores and softmax in float32, the weights rounded."""
    if enable_gqa:
        key = key.repeat_interleave(query.shape[-3] // key.shape[-3], -3)
        value = value.repeat_interleave(query.shape[-3] // value.shape[-3], -3)
    q, k = operand(query, how.left, how), operand(key, how.right, how)
    scores = sums(q, k.mT, how) * (1 / math.sqrt(query.shape[-1]) if scale is None else scale)
    if is_causal:
        shape = scores.shape[-2:]
        attn_mask = torch.ones(shape, dtype=torch.bool, device=scores.device).tril()
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        scores = scores.masked_fill(~attn_mask, -math.inf)
    elif attn_mask is not None:
        scores = scores + attn_mask
    weights = torch.softmax(scores, -1)
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        weights = weights.masked_fill(~attn_mask.any(-1, keepdim=True), 0.0)  # as torch does
    if dropout_p > 0:
        weights = functional.dropout(weights, dropout_p)
    return outcome(
        sums(operand(weights, how.left, how), operand(value, how.right, how), how), None, how
    )


def multi_head_attention(
    how: How,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    embed_dim_to_check: int,
    num_heads: int,
    in_proj_weight: Tensor | None,
    in_proj_bias: Tensor | None,
    bias_k: Tensor | None,
    bias_v: Tensor | None,
    add_zero_attn: bool,
    dropout_p: float,
    out_proj_weight: Tensor,
    out_proj_bias: Tensor | None,
    training: bool = True,
    key_padding_mask: Tensor | None = None,
    need_weights: bool = True,
    attn_mask: Tensor | None = None,
    use_separate_proj_weight: bool = False,
    q_proj_weight: Tensor | None = None,
    k_proj_weight: Tensor | None = None,
    v_proj_weight: Tensor | None = None,
    static_k: Tensor | None = None,
    static_v: Tensor | None = None,
    average_attn_weights: bool = True,
    is_causal: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """Return what `torch.nn.MultiheadAttention` computes, made of the products above."""
    is_single = query.ndim == 2
    if is_single:
        query, key, value = (x.unsqueeze(1) for x in (query, key, value))
        key_padding_mask = None if key_padding_mask is None else key_padding_mask[None]
    targets, batch, width = query.shape
    if use_separate_proj_weight:
        kernels: Any = (q_proj_weight, k_proj_weight, v_proj_weight)
    else:
        assert in_proj_weight is not None
        kernels = in_proj_weight.chunk(3)
    biases: Any = (None,) * 3 if in_proj_bias is None else in_proj_bias.chunk(3)
    q, k, v = (
        linear(how, x, w, b) for x, w, b in zip((query, key, value), kernels, biases, strict=True)
    )
    if bias_k is not None and bias_v is not None:
        k, v = (torch.cat([x, b.repeat(1, batch, 1)]) for x, b in ((k, bias_k), (v, bias_v)))
    added = int(bias_k is not None)

    def by_head(x: Tensor, static: Tensor | None) -> Tensor:
        if static is not None:
            return static.reshape(batch, num_heads, *static.shape[1:])
        return x.reshape(x.shape[0], batch, num_heads, -1).permute(1, 2, 0, 3)

    q, k, v = by_head(q, None), by_head(k, static_k), by_head(v, static_v)
    if add_zero_attn:
        k, v = (torch.cat([x, torch.zeros_like(x[:, :, :1])], 2) for x in (k, v))
        added += 1
    mask = _merged_mask(attn_mask, key_padding_mask, added, batch, num_heads, k.shape[2])
    if is_causal and attn_mask is None:
        causal = torch.ones(targets, k.shape[2], dtype=torch.bool).tril()
        mask = torch.where(causal, 0.0, -math.inf) + (0 if mask is None else mask)
    rate = dropout_p if training else 0.0
    weights = None
    if need_weights:
        scaled = operand(q, how.left, how), operand(k, how.right, how)
        scores = sums(scaled[0], scaled[1].mT, how) / math.sqrt(q.shape[-1])
        weights = torch.softmax(scores if mask is None else scores + mask, -1)
        weights = functional.dropout(weights, rate, rate > 0)
        y = sums(operand(weights, how.left, how), operand(v, how.right, how), how)
        y = outcome(y, None, how)
        weights = weights.mean(1) if average_attn_weights else weights
        weights = weights[0] if is_single else weights
    else:
        y = attention(how, q, k, v, mask, rate)
    y = y.permute(2, 0, 1, 3).reshape(targets, batch, width)
    y = linear(how, y, out_proj_weight, out_proj_bias)
    return (y[:, 0] if is_single else y), weights


def _merged_mask(
    mask: Tensor | None,
    padding: Tensor | None,
    added: int,
    batch: int,
    heads: int,
    sources: int,
) -> Tensor | None:
    """Return what is added to scores: of the two masks, in which True says what is left out."""

    def added_to(x: Tensor) -> Tensor:
        if x.dtype == torch.bool:
            x = torch.zeros(x.shape).masked_fill(x, -math.inf)
        return functional.pad(x, (0, added))

    merged = None
    if mask is not None:
        merged = added_to(mask)
        if merged.ndim == 3:
            merged = merged.reshape(batch, heads, *merged.shape[1:])
    if padding is not None:
        lifted = added_to(padding).reshape(batch, 1, 1, sources)
        merged = lifted if merged is None else merged + lifted
    return merged


# Recurrent layers ----------------------------------------------------------------------------


def _gates(how: How, x: Tensor, w: Tensor, b: Tensor | None) -> Tensor:
    """Return x · Wᵀ + b in float32: gates are not rounded before their activation."""
    z = sums(operand(x, how.left, how), operand(w, how.right, how).t(), how)
    return z if b is None else z + operand(b, how.right, how)


def lstm_cell(
    how: How, x: Tensor, hx: Any, w_ih: Tensor, w_hh: Tensor, b_ih: Any = None, b_hh: Any = None
) -> tuple[Tensor, Tensor]:
    """Take one step of an LSTM; the cell's state stays in float32."""
    h, c = hx
    gates = _gates(how, x, w_ih, b_ih) + _gates(how, h, w_hh, b_hh)
    i, f, g, o = gates.chunk(4, -1)
    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    return rounded_both_ways(torch.sigmoid(o) * torch.tanh(c), how), c


def gru_cell(
    how: How, x: Tensor, h: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Any = None, b_hh: Any = None
) -> Tensor:
    """Take one step of a GRU."""
    ir, iz, inew = _gates(how, x, w_ih, b_ih).chunk(3, -1)
    hr, hz, hnew = _gates(how, h, w_hh, b_hh).chunk(3, -1)
    r, z = torch.sigmoid(ir + hr), torch.sigmoid(iz + hz)
    new = torch.tanh(inew + r * hnew)
    return rounded_both_ways((1 - z) * new + z * h, how)


def rnn_cell(activation: Callable[[Tensor], Tensor]) -> Callable[..., Tensor]:
    """Return what takes one step of a plain recurrent layer."""

    def cell(
        how: How,
        x: Tensor,
        h: Tensor,
        w_ih: Tensor,
        w_hh: Tensor,
        b_ih: Any = None,
        b_hh: Any = None,
    ) -> Tensor:
        gates = _gates(how, x, w_ih, b_ih) + _gates(how, h, w_hh, b_hh)
        return rounded_both_ways(activation(gates), how)

    return cell


def recurrent(cell: Callable[..., Any], has_cell_state: bool) -> Callable[..., Any]:
    """Return what runs a cell over padded or packed sequences, in layers and both directions."""

    def run(how: How, data: Tensor, *rest: Any) -> Any:
        is_packed = isinstance(rest[0], torch.Tensor) and isinstance(rest[2], list | tuple)
        if is_packed:
            sizes, hx, weights, has_biases, layers, rate, training, both_ways = rest
            steps = list(data.split(sizes.tolist()))
            batch_first = False
        else:
            hx, weights, has_biases, layers, rate, training, both_ways, batch_first = rest
            steps = list((data.transpose(0, 1) if batch_first else data).unbind(0))
        states = [x.to(torch.float32) for x in (hx if has_cell_state else (hx,))]
        ways, ends = 2 if both_ways else 1, list[Any]()
        kernels = list(weights)
        count = len(kernels) // (layers * ways)
        for layer in range(layers):
            if layer and rate and training:
                steps = [functional.dropout(x, rate) for x in steps]
            found = []
            for way in range(ways):
                place = layer * ways + way
                own = kernels[place * count : (place + 1) * count]
                start = [s[place] for s in states]
                order = range(len(steps)) if way == 0 else range(len(steps) - 1, -1, -1)
                outputs, end = _run_cell(
                    how, cell, has_cell_state, steps, order, own, start, has_biases
                )
                found.append(outputs)
                ends.append(end)
            steps = [torch.cat(parts, -1) for parts in zip(*found, strict=True)]
        last = [torch.stack([end[k] for end in ends]) for k in range(len(states))]
        if is_packed:
            return (torch.cat(steps), *last)
        output = torch.stack(steps, 1 if batch_first else 0)
        return (output, *last)

    return run


def _run_cell(
    how: How,
    cell: Callable[..., Any],
    has_cell_state: bool,
    steps: list[Tensor],
    order: Any,
    own: list[Tensor],
    start: list[Tensor],
    has_biases: bool,
) -> tuple[list[Tensor], list[Tensor]]:
    """Run a cell over steps whose batches may shrink; return every output and the last states."""
    biases = own[2:4] if has_biases else [None, None]
    projection = own[4 if has_biases else 2] if len(own) > (4 if has_biases else 2) else None
    states, outputs = start, [steps[0]] * len(steps)
    for t in order:
        x, rows = steps[t], steps[t].shape[0]
        now = [s[:rows] for s in states]
        new = cell(how, x, tuple(now) if has_cell_state else now[0], own[0], own[1], *biases)
        new = list(new) if has_cell_state else [new]
        if projection is not None:
            new[0] = linear(how, new[0], projection)
        outputs[t] = new[0]
        states = [
            n if rows == s.shape[0] else torch.cat([n, s[rows:]])
            for n, s in zip(new, states, strict=True)
        ]
    return outputs, states


# Between products ----------------------------------------------------------------------------


def rounding_after(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Return what calls a function in float32 and rounds its result: norms, embeddings."""

    def run(how: How, *arguments: Any, **options: Any) -> Tensor:
        wide = [_wide(x) for x in arguments]
        return rounded_both_ways(function(*wide, **{k: _wide(v) for k, v in options.items()}), how)

    return run


def _wide(x: Any) -> Any:
    is_narrow = isinstance(x, torch.Tensor) and x.dtype in (torch.float16, torch.bfloat16)
    return x.to(torch.float32) if is_narrow else x
