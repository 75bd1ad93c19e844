"""Everyday operators, each as a small step on rows of eight numbers, as published networks call it.

`STEPS` maps a name to a function of (rows, 8) numbers in (0, 1) that returns rows first, whatever
the other axes. None mixes rows.
"""

import math
from collections.abc import Callable, Iterable
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the table is read beside torch's own pages

from dubito.engine import Engine
from dubito_nn import ExportError, export

Step = Callable[[Tensor], Tensor]


def _written(write: Callable[[Tensor], object]) -> Step:
    def step(y: Tensor) -> Tensor:
        y = y.clone()
        write(y)
        return y

    return step


def _set(index: object, value: object) -> Step:
    return _written(lambda y: y.__setitem__(index, value))


def _filled_in_parts(y: Tensor) -> Tensor:
    """Memory that is written before it is read."""
    whole = y.new_empty(y.shape[0], 9)
    whole[:, :8], whole[:, 8:] = y, y[:, :1]
    return whole


def _maps(y: Tensor) -> Tensor:
    """Two channels of 4 x 4."""
    return torch.cat([y, y * 0.5, y + 0.1, -y], dim=1).view(-1, 2, 4, 4)


def _series(y: Tensor) -> Tensor:
    return y.view(-1, 2, 4)


def _squares(y: Tensor) -> Tensor:
    """A well-conditioned 2 x 2 matrix a row."""
    return y[:, :4].reshape(-1, 2, 2) + 2 * torch.eye(2)


def _spd(y: Tensor) -> Tensor:
    a = _squares(y)
    return a @ a.transpose(1, 2) + torch.eye(2)


def _ids(y: Tensor) -> Tensor:
    return (y * 7).long().clamp(0, 7)


_TABLE = torch.linspace(-1, 1, 24).view(8, 3)
_INDEX = torch.tensor([3, 1, 0, 2, 5, 4, 7, 6])

STEPS: dict[str, Step] = {
    # written in place
    "y[:, 0] = 1.0": _set((slice(None), 0), 1.0),
    "y[:, 1:3] = 0": _set((slice(None), slice(1, 3)), 0),
    "y[..., -1] = tensor": _set((..., -1), torch.tensor(2.0)),
    "y[:, [0, 2]] = 1": _set((slice(None), [0, 2]), 1.0),
    "y[y > .5] = 0": _written(lambda y: y.__setitem__(y > 0.5, 0.0)),
    "y[:, 1] = y[:, 0]": _written(lambda y: y.__setitem__((slice(None), 1), y[:, 0])),
    "y[:, 1] += y[:, 0]": _written(lambda y: y[:, 1].add_(y[:, 0])),
    "fill_": _written(lambda y: y[:, 0].fill_(3.0)),
    "zero_": _written(lambda y: y[:, 2].zero_()),
    "copy_": _written(lambda y: y[:, :4].copy_(y[:, 4:].clone())),
    "masked_fill_": _written(lambda y: y.masked_fill_(y > 0.5, -1.0)),
    "a diagonal in place": lambda y: _written(lambda z: z.diagonal(0, 1, 2).fill_(3.0))(
        _squares(y)
    ),
    "new_empty in parts": _filled_in_parts,
    "clamp_": _written(lambda y: y.clamp_(0.2, 0.8)),
    "relu_": _written(lambda y: y.relu_()),
    "exp_": _written(lambda y: y.exp_()),
    "index_fill": lambda y: y.index_fill(1, _INDEX[:2], 0.5),
    "index_copy": lambda y: y.index_copy(1, _INDEX[:2], y[:, :2]),
    "index_copy_": _written(lambda y: y.index_copy_(1, _INDEX[:2], y[:, 4:6].clone())),
    "index_add_": _written(lambda y: y.index_add_(1, _INDEX[:2], y[:, 4:6].clone())),
    "index_reduce": lambda y: y.index_reduce(1, _INDEX[:2], y[:, :2], "amax"),
    "scatter_": lambda y: torch.zeros_like(y).scatter_(1, _ids(y)[:, :1], 1.0) * y,
    "scatter_add_": lambda y: torch.zeros_like(y).scatter_add_(1, _ids(y), y),
    "scatter_reduce": lambda y: y.scatter_reduce(1, _ids(y), y, "amax"),
    "scatter_reduce mean": lambda y: y.scatter_reduce(1, _ids(y), y, "mean", include_self=False),
    "masked_scatter": lambda y: y.masked_scatter(
        torch.tensor([True] * 4 + [False] * 4).expand_as(y), y * 2
    ),
    "put_along": lambda y: y.scatter(1, y.argmax(1, keepdim=True), 0.0),
    "diagonal_scatter": lambda y: _squares(y).diagonal_scatter(y[:, :2], 0, 1, 2),
    # other names of arithmetic
    "multiply": lambda y: torch.multiply(y, 2.0),
    "divide": lambda y: torch.divide(y, y + 1),
    "subtract": lambda y: torch.subtract(y, 1.0),
    "true_divide": lambda y: torch.true_divide(y, 3),
    "div trunc": lambda y: torch.div(y * 7, 2.0, rounding_mode="trunc"),
    "div floor": lambda y: torch.div(y * 7, 2.0, rounding_mode="floor"),
    "floor_divide": lambda y: y * 7 // 2,
    "negative": torch.negative,
    "absolute": torch.absolute,
    "fix": lambda y: torch.fix(y * 3),
    "arcsin": torch.arcsin,
    "arctanh": lambda y: torch.arctanh(y * 0.9),
    "arctan2": lambda y: torch.arctan2(y, y + 1),
    "clip": lambda y: torch.clip(y, 0.2, 0.8),
    "clamp tensors": lambda y: torch.clamp(y, torch.tensor(0.2), torch.tensor(0.7)),
    "greater": lambda y: torch.greater(y, 0.5).float() * y,
    "less_equal": lambda y: torch.less_equal(y, 0.5).float() * y,
    "not_equal": lambda y: torch.not_equal(y, 0).float() * y,
    "isclose": lambda y: torch.isclose(y, y).float() * y,
    "logical on numbers": lambda y: torch.logical_and(y > 0.2, y < 0.8).float() * y,
    "rsub": lambda y: 1 - y,
    "rpow": lambda y: 2**y,
    "float_power": lambda y: y.float_power(2).float(),
    "square": torch.square,
    "heaviside": lambda y: torch.heaviside(y - 0.5, torch.tensor(0.0)) * y,
    "sign": lambda y: torch.sign(y - 0.5) * y,
    "signbit": lambda y: torch.signbit(y - 0.5).float() * y,
    "exp2": torch.exp2,
    "expit": torch.special.expit,
    "erfcx": torch.special.erfcx,
    "erfc": torch.erfc,
    "ndtr": torch.special.ndtr,
    "ndtri": lambda y: torch.special.ndtri(y.clamp(0.01, 0.99)),
    "log_ndtr": torch.special.log_ndtr,
    "i0": torch.special.i0,
    "i0e": torch.special.i0e,
    "i1e": torch.special.i1e,
    "lgamma": lambda y: torch.lgamma(y + 1),
    "mvlgamma": lambda y: torch.mvlgamma(y + 2, 2),
    "polygamma": lambda y: torch.polygamma(1, y + 1),
    "digamma": lambda y: torch.digamma(y + 1),
    "entr": torch.special.entr,
    "xlog1py": lambda y: torch.special.xlog1py(y, y),
    "zeta": lambda y: torch.special.zeta(y + 2, 1.0),
    "sinc": torch.sinc,
    "logit": lambda y: torch.logit(y, 1e-3),
    "softmax by special": lambda y: torch.special.softmax(y, 1),
    "addcmul": lambda y: torch.addcmul(y, y, y, value=0.5),
    "addcdiv": lambda y: torch.addcdiv(y, y, y + 1, value=0.5),
    "lerp": lambda y: torch.lerp(y, y * 2, 0.3),
    "gcd of ids": lambda y: torch.gcd(_ids(y), _ids(y) + 1).float() * y,
    "bitwise shift": lambda y: (_ids(y) << 1).float() * y,
    "bitwise_not": lambda y: (~_ids(y)).float() * y,
    "ldexp": lambda y: torch.ldexp(y, torch.tensor(2)),
    "frexp": lambda y: torch.frexp(y)[0],
    "hypot": lambda y: torch.hypot(y, y),
    "nextafter": lambda y: torch.nextafter(y, y + 1),
    "fmin": lambda y: torch.fmin(y, y * 2),
    "copysign": lambda y: torch.copysign(y, y - 0.5),
    "isposinf": lambda y: torch.isposinf(y).float() + y,
    "isreal": lambda y: torch.isreal(y).float() * y,
    "where scalars": lambda y: torch.where(y > 0.5, 1.0, 0.0) * y,
    "type promotion": lambda y: (y.double() * 2).to(y),
    "float()": lambda y: y.float(),
    "half and back": lambda y: y.to(torch.bfloat16).float(),
    # cutting and joining
    "concat": lambda y: torch.concat([y, y], 1),
    "concatenate": lambda y: torch.concatenate([y, y], 1),
    "hstack": lambda y: torch.hstack([y, y]),
    "dstack": lambda y: torch.dstack([y, y]),
    "column_stack": lambda y: torch.column_stack([y, y]),
    "tile": lambda y: torch.tile(y, (1, 2)),
    "hsplit": lambda y: torch.hsplit(y, 2)[1],
    "vsplit of parts": lambda y: torch.dsplit(_series(y), 2)[1],
    "tensor_split at": lambda y: torch.tensor_split(y, [3, 5], 1)[1],
    "split sizes": lambda y: torch.split(y, [3, 5], 1)[1],
    "unsafe_chunk": lambda y: torch.unsafe_chunk(y, 2, 1)[1],
    "unsafe_split": lambda y: torch.unsafe_split(y, 4, 1)[1],
    "repeat_interleave": lambda y: y.repeat_interleave(2, 1),
    "repeat_interleave by a list": lambda y: y.repeat_interleave(torch.tensor([1, 2] * 4), 1),
    "swapaxes": lambda y: _series(y).swapaxes(1, 2),
    "swapdims": lambda y: _series(y).swapdims(1, 2),
    "moveaxis": lambda y: torch.moveaxis(_series(y), 1, 2),
    "adjoint": lambda y: _series(y).adjoint(),
    "mT": lambda y: _series(y).mT,
    "ravel of parts": lambda y: _series(y).flatten(1),
    "unflatten": lambda y: y.unflatten(1, (2, 4)),
    "view dtype back": lambda y: y.view(torch.int32).view(torch.float32),
    "rot90": lambda y: torch.rot90(_maps(y), 1, (2, 3)),
    "fliplr": lambda y: torch.fliplr(y),
    "roll": lambda y: torch.roll(y, 2, 1),
    "take_along_dim": lambda y: torch.take_along_dim(y, _ids(y), 1),
    "select": lambda y: y.select(1, 3),
    "narrow": lambda y: y.narrow(1, 2, 3),
    "index by a list": lambda y: y[:, [3, 1, 0]],
    "index by a range": lambda y: y[:, torch.arange(3)],
    "index by ids": lambda y: _TABLE[_ids(y)],
    "index from the end": lambda y: y[:, -1:],
    "every second": lambda y: y[:, ::2],
    "newaxis": lambda y: y[:, None, :, None],
    "masked by a constant": lambda y: y[:, torch.tensor([True, False] * 4)],
    "masked_select by a constant": lambda y: y[:, torch.arange(8) > 3],
    "diag of a map": lambda y: torch.diagonal(_squares(y), 0, 1, 2),
    "diagflat": lambda y: torch.diag_embed(y)[:, 0],
    "block_diag of constants": lambda y: y @ torch.block_diag(torch.ones(4, 4), torch.ones(4, 4)),
    "tril_indices": lambda y: (y[:, :4].unsqueeze(2) * y[:, None, :4])[
        :, torch.tril_indices(4, 4)[0], torch.tril_indices(4, 4)[1]
    ],
    "triu_indices": lambda y: (y[:, :4].unsqueeze(2) * y[:, None, :4])[
        :, torch.triu_indices(4, 4, 1)[0], torch.triu_indices(4, 4, 1)[1]
    ],
    "meshgrid": lambda y: (
        y[:, :, None] + torch.meshgrid(torch.arange(8.0), torch.arange(2.0), indexing="ij")[1]
    ),
    "cartesian_prod": lambda y: (
        y + torch.cartesian_prod(torch.arange(2.0), torch.arange(4.0))[:, 1]
    ),
    "combinations": lambda y: y[:, torch.combinations(torch.arange(4))[:, 0]],
    "unfold": lambda y: y.unfold(1, 3, 2),
    "as_strided windows": lambda y: y.as_strided((y.shape[0], 6, 3), (8, 1, 1)),
    "pixel_shuffle": lambda y: F.pixel_shuffle(_maps(y).repeat(1, 2, 1, 1), 2),
    "channel_shuffle": lambda y: F.channel_shuffle(_maps(y), 2),
    "one_hot": lambda y: F.one_hot(_ids(y), 8).float() * y.unsqueeze(2),
    "view_as": lambda y: y.view_as(y * 2),
    "atleast_3d": lambda y: torch.atleast_3d(_series(y)),
    "expand -1": lambda y: y.unsqueeze(1).expand(-1, 3, -1),
    "broadcast_to": lambda y: torch.broadcast_to(torch.ones(8), y.shape) * y,
    "ones_like": lambda y: torch.ones_like(y) * y,
    "new_tensor": lambda y: y * y.new_tensor([1.0, 2.0] * 4),
    "full_like": lambda y: torch.full_like(y, 2.0) * y,
    "empty and filled": lambda y: y.new_empty(y.shape).fill_(2.0) * y,
    "logspace": lambda y: y * torch.logspace(0, 1, 8),
    "linspace": lambda y: y * torch.linspace(0, 1, 8),
    "hann_window": lambda y: y * torch.hann_window(8),
    "hamming_window": lambda y: y * torch.hamming_window(8),
    # counting and reducing
    "median": lambda y: y.median(1).values,
    "nanmedian": lambda y: y.nanmedian(1).values,
    "mode": lambda y: y.mode(1).values,
    "kthvalue": lambda y: y.kthvalue(3, 1).values,
    "quantile": lambda y: y.quantile(0.3, 1),
    "nanquantile": lambda y: y.nanquantile(0.3, 1),
    "msort of parts": lambda y: y.sort(1).values,
    "aminmax": lambda y: torch.aminmax(y, dim=1)[0],
    "nanmean": lambda y: y.nanmean(1),
    "nansum": lambda y: y.nansum(1),
    "var_mean": lambda y: torch.var_mean(y, 1)[0],
    "std_mean": lambda y: torch.std_mean(y, 1)[0],
    "var biased": lambda y: y.var(1, unbiased=False),
    "std": lambda y: y.std(1),
    "max and place": lambda y: y.max(1).values,
    "norm": lambda y: y.norm(dim=1),
    "norm p": lambda y: y.norm(p=3, dim=1),
    "norm inf": lambda y: y.norm(p=math.inf, dim=1),
    "linalg.norm": lambda y: torch.linalg.norm(y, dim=1),
    "linalg.norm of matrices": lambda y: torch.linalg.norm(_squares(y), dim=(1, 2)),
    "linalg.matrix_norm": lambda y: torch.linalg.matrix_norm(_squares(y)),
    "linalg.vector_norm": lambda y: torch.linalg.vector_norm(y, dim=1),
    "renorm": lambda y: y.renorm(2, 0, 0.5),
    "normalize": lambda y: F.normalize(y, dim=1),
    "logsumexp": lambda y: y.logsumexp(1),
    "prod": lambda y: y.prod(1),
    "cumsum": lambda y: y.cumsum(1),
    "cummax": lambda y: y.cummax(1).values,
    "logcumsumexp": lambda y: y.logcumsumexp(1),
    "cumulative_trapezoid": lambda y: torch.cumulative_trapezoid(y, dim=1),
    "trapezoid": lambda y: torch.trapezoid(y, dim=1),
    "diff": lambda y: y.diff(dim=1),
    "gradient": lambda y: torch.gradient(y, dim=1)[0],
    "dist of halves": lambda y: (y[:, :4] - y[:, 4:]).norm(dim=1),
    "pairwise_distance": lambda y: F.pairwise_distance(y[:, :4], y[:, 4:]),
    "cdist": lambda y: torch.cdist(_series(y), _series(y) + 1),
    "cdist p = 1": lambda y: torch.cdist(_series(y), _series(y) + 1, p=1),
    "cdist to constants": lambda y: torch.cdist(y, torch.eye(8)),
    "cosine_similarity": lambda y: F.cosine_similarity(y[:, :4], y[:, 4:]),
    "trace": lambda y: torch.einsum("bii->b", _squares(y)),
    "sum of truths": lambda y: (y > 0.5).sum(1),
    "any": lambda y: (y > 0.5).any(1).float() + y[:, 0],
    "count_nonzero": lambda y: torch.count_nonzero(y > 0.5, 1) * y[:, 0],
    "histogram by one_hot": lambda y: F.one_hot(_ids(y), 8).sum(1),
    "searchsorted": lambda y: torch.searchsorted(torch.linspace(0, 1, 5), y).float() * y,
    "searchsorted in rows": lambda y: torch.searchsorted(y.sort(1).values, y).float() * y,
    "bucketize": lambda y: torch.bucketize(y, torch.linspace(0, 1, 5)).float() * y,
    "isin": lambda y: torch.isin(_ids(y), torch.tensor([1, 3])).float() * y,
    "topk": lambda y: y.topk(3, 1).values,
    "argsort": lambda y: y.argsort(1).float() * y,
    "argmax": lambda y: y.argmax(1).float() * y[:, 0],
    "cov of parts": lambda y: torch.einsum("bij,bkj->bik", _series(y), _series(y)),
    # products
    "@": lambda y: y @ torch.eye(8),
    "linalg.multi_dot": lambda y: torch.linalg.multi_dot([y, torch.eye(8), torch.ones(8, 3)]),
    "linalg.matmul": lambda y: torch.linalg.matmul(y, torch.eye(8)),
    "chain_matmul": lambda y: torch.linalg.multi_dot([y, torch.ones(8, 2), torch.ones(2, 3)]),
    "linalg.vecdot": lambda y: torch.linalg.vecdot(y, y),
    "inner": lambda y: torch.inner(y, torch.ones(3, 8)),
    "kron of constants": lambda y: y @ torch.kron(torch.ones(2, 2), torch.eye(4)),
    "einsum": lambda y: torch.einsum("bi,bj->bij", y, y),
    "tensordot": lambda y: torch.tensordot(y, torch.eye(8), dims=1),
    "addbmm of one": lambda y: torch.baddbmm(_squares(y), _squares(y), _squares(y)),
    "addr-like": lambda y: torch.addmm(torch.zeros(8), y, torch.eye(8), beta=0.5, alpha=2.0),
    "bilinear": lambda y: F.bilinear(y, y, torch.ones(2, 8, 8)),
    "linalg.cross": lambda y: torch.linalg.cross(y[:, :3], y[:, 3:6]),
    "cross": lambda y: torch.cross(y[:, :3], y[:, 3:6], dim=1),
    "matrix_power": lambda y: torch.linalg.matrix_power(_squares(y), 3),
    "matrix_exp": lambda y: torch.matrix_exp(_squares(y)),
    "matrix_exp of constants": lambda y: y @ torch.matrix_exp(torch.eye(8)),
    "inv": lambda y: torch.linalg.inv(_squares(y)),
    "inverse of constants": lambda y: y @ torch.inverse(torch.eye(8) * 2),
    "pinv of constants": lambda y: y @ torch.linalg.pinv(torch.ones(8, 8)),
    "solve": lambda y: torch.linalg.solve(_squares(y), y[:, :2, None]),
    "solve_triangular": lambda y: torch.linalg.solve_triangular(
        _squares(y).tril(), y[:, :2, None], upper=False
    ),
    "cholesky": lambda y: torch.linalg.cholesky(_spd(y)),
    "cholesky_solve": lambda y: torch.cholesky_solve(
        y[:, :2, None], torch.linalg.cholesky(_spd(y))
    ),
    "cholesky_inverse of constants": lambda y: y @ torch.cholesky_inverse(torch.eye(8)),
    "det": lambda y: torch.linalg.det(_squares(y)),
    "slogdet": lambda y: torch.linalg.slogdet(_squares(y))[1],
    "logdet": lambda y: torch.logdet(_spd(y)),
    "svd of constants": lambda y: y @ torch.linalg.svd(torch.ones(8, 8))[0],
    "svdvals": lambda y: torch.linalg.svdvals(_squares(y)),
    "eigvalsh": lambda y: torch.linalg.eigvalsh(_spd(y)),
    "qr of constants": lambda y: y @ torch.linalg.qr(torch.eye(8) + 1)[0],
    # transforms
    "rfft": lambda y: torch.fft.rfft(y).abs(),
    "rfft parts": lambda y: torch.view_as_real(torch.fft.rfft(y)),
    "fft": lambda y: torch.fft.fft(y).real,
    "fft of both axes": lambda y: torch.fft.fft(torch.fft.fft(_series(y), dim=-1), dim=-2).real,
    "fft2": lambda y: torch.fft.fft2(_maps(y)).real,
    "filter in frequencies": lambda y: torch.fft.irfft(
        torch.fft.rfft(y) * torch.complex(torch.ones(5), torch.zeros(5)), n=8
    ),
    "rfft2 and back": lambda y: torch.fft.irfft2(torch.fft.rfft2(_maps(y)), s=(4, 4)),
    "fftshift": lambda y: torch.fft.fftshift(y, dim=1),
    "fftfreq": lambda y: y * torch.fft.fftfreq(8),
    "ifft": lambda y: torch.fft.ifft(torch.fft.fft(y)).real,
    "stft": lambda y: torch.view_as_real(
        torch.stft(y, 4, 2, window=torch.ones(4), return_complex=True)
    ),
    "view_as_complex": lambda y: torch.view_as_real(
        torch.view_as_complex(y.view(-1, 4, 2)) * torch.polar(torch.ones(4), torch.arange(4.0))
    ),
    "complex": lambda y: torch.complex(y, y).abs(),
    "polar": lambda y: torch.polar(y, y).real,
    "angle": lambda y: torch.angle(torch.complex(y, y)),
    "conj": lambda y: torch.complex(y, y).conj().imag,
    "angle of numbers": lambda y: torch.angle(y - 0.5),
    # layers
    "embedding": lambda y: F.embedding(_ids(y), _TABLE),
    "embedding_bag": lambda y: F.embedding_bag(_ids(y), _TABLE, mode="mean"),
    "embedding_bag sum": lambda y: F.embedding_bag(_ids(y), _TABLE, mode="sum"),
    "embedding_bag max": lambda y: F.embedding_bag(_ids(y), _TABLE, mode="max"),
    "embedding_bag weighted": lambda y: F.embedding_bag(
        _ids(y), _TABLE, mode="sum", per_sample_weights=y
    ),
    "embedding_bag padded": lambda y: F.embedding_bag(_ids(y), _TABLE, mode="mean", padding_idx=3),
    "rms_norm": lambda y: F.rms_norm(y, (8,)),
    "local_response_norm": lambda y: F.local_response_norm(_maps(y), 2),
    "group_norm": lambda y: F.group_norm(_maps(y), 2),
    "instance_norm": lambda y: F.instance_norm(_maps(y)),
    "softmin": lambda y: F.softmin(y, 1),
    "softsign": F.softsign,
    "tanhshrink": F.tanhshrink,
    "logsigmoid": F.logsigmoid,
    "hardswish": F.hardswish,
    "gumbel-free softmax": lambda y: F.softmax(y / 0.5, -1),
    "glu": lambda y: F.glu(y, 1),
    "threshold": lambda y: F.threshold(y, 0.5, 0.1),
    "lp_pool1d": lambda y: F.lp_pool1d(_series(y), 2, 2),
    "lp_pool2d": lambda y: F.lp_pool2d(_maps(y), 2, 2),
    "max_unpool2d": lambda y: F.max_unpool2d(*F.max_pool2d(_maps(y), 2, return_indices=True), 2),
    "adaptive_max_pool with places": lambda y: F.adaptive_max_pool2d(
        _maps(y), 2, return_indices=True
    )[0],
    "adaptive_avg_pool 1": lambda y: F.adaptive_avg_pool2d(_maps(y), 1),
    "avg_pool1d": lambda y: F.avg_pool1d(_series(y), 2),
    "fold": lambda y: F.fold(F.unfold(_maps(y), 2), (4, 4), 2),
    "interpolate": lambda y: F.interpolate(_maps(y), scale_factor=2),
    "interpolate bilinear": lambda y: F.interpolate(_maps(y), size=(6, 6), mode="bilinear"),
    "interpolate area": lambda y: F.interpolate(_maps(y), size=(2, 2), mode="area"),
    "grid_sample": lambda y: F.grid_sample(
        _maps(y), F.affine_grid(torch.eye(2, 3).expand(y.shape[0], 2, 3), (y.shape[0], 2, 4, 4))
    ),
    "grid_sample of constants": lambda y: F.grid_sample(
        _maps(y), torch.zeros(1, 3, 3, 2).expand(y.shape[0], 3, 3, 2), align_corners=False
    ),
    "pad circular": lambda y: F.pad(_maps(y), (1, 1, 1, 1), mode="circular"),
    "pad reflect": lambda y: F.pad(_maps(y), (1, 1, 1, 1), mode="reflect"),
    "pad replicate": lambda y: F.pad(_series(y), (1, 1), mode="replicate"),
    "conv1d same": lambda y: F.conv1d(_series(y), torch.ones(3, 2, 3), padding="same"),
    "attention": lambda y: F.scaled_dot_product_attention(_maps(y), _maps(y), _maps(y)),
    "attention is_causal": lambda y: F.scaled_dot_product_attention(
        _maps(y), _maps(y), _maps(y), is_causal=True
    ),
    "cross_entropy of rows": lambda y: F.cross_entropy(y, y.argmax(1), reduction="none"),
    "nll of rows": lambda y: F.nll_loss(y.log_softmax(1), y.argmax(1), reduction="none"),
    "smooth_l1 of rows": lambda y: F.smooth_l1_loss(y, y * 0, reduction="none"),
    "mse of rows": lambda y: F.mse_loss(y, y * 0, reduction="none"),
    "kl_div of rows": lambda y: F.kl_div(y.log_softmax(1), y.softmax(1), reduction="none"),
    "bce with logits of rows": lambda y: F.binary_cross_entropy_with_logits(y, y, reduction="none"),
    "weight_norm": lambda y: F.linear(y, torch._weight_norm(torch.eye(8), torch.ones(8, 1), 0)),
    "sparsemax-like": lambda y: (y.sort(1, descending=True).values.cumsum(1) - 1).amax(1),
}

REFUSED = frozenset(
    [
        *("gcd of ids", "bitwise shift", "frexp", "nextafter", "view dtype back", "zeta"),
        *("as_strided windows", "index_reduce", "masked_scatter", "svdvals", "eigvalsh"),
        *("div trunc", "gradient"),
    ]
)
"""Steps that no bundle takes, most because an argument of a stranger's could do harm."""

MIXED = frozenset(
    [
        *(
            "y[:, 0] = 1.0",
            "fill_",
            "new_empty in parts",
            "a diagonal in place",
            "index_copy",
            "scatter_reduce",
            "rot90",
        ),
        *("heaviside", "log_ndtr", "median", "nanmean", "take_along_dim", "cdist", "searchsorted"),
        *("linalg.multi_dot", "cross", "inv", "cholesky_solve", "inverse of constants", "stft"),
        *("filter in frequencies", "fft2", "view_as_complex", "conj", "embedding_bag padded"),
        *("masked by a constant", "repeat_interleave by a list", "cross_entropy of rows", "isin"),
    ]
)
"""Steps of every kind that the suite serves; all of them are by `python -m tests.spellings`."""


class Stepwise(nn.Module):
    """A network that adds up what steps make of what its dropout left."""

    def __init__(self, names: Iterable[str]) -> None:
        super().__init__()
        self.inner, self.head, self.dropout = nn.Linear(8, 8), nn.Linear(8, 3), nn.Dropout(0.3)
        self.steps = [STEPS[name] for name in names]

    def forward(self, x: Tensor) -> Tensor:
        dropped = self.dropout(self.inner(x)).sigmoid()
        made = [step(dropped).reshape(x.shape[0], -1).to(x.dtype) for step in self.steps]
        return self.head(dropped) + sum(part.mean(1, keepdim=True) + part[:, :1] for part in made)


def served(names: Iterable[str], path: Path) -> Engine:
    """An engine of the network of some steps, whose point graph is its evaluation mode."""
    torch.manual_seed(0)
    network, x = Stepwise(names), torch.randn(9, 8)
    bundle = export(network, x[:6], path, task="regression", output="mean")
    point = bundle.point.run({"x": x}, bundle.weights)["output"]
    torch.testing.assert_close(point, network.eval()(x).detach(), atol=1e-4, rtol=1e-4)
    return Engine.load(path)


def main() -> None:
    """Serve every step alone, and print those that are refused, with the reason."""
    with TemporaryDirectory() as folder:
        for name in STEPS:
            try:
                served([name], Path(folder) / "network.dubito")
            except ExportError as error:
                print(f"{name}: {error}")


if __name__ == "__main__":
    main()
