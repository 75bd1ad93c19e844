"""From a trained network to a bundle that can be served.

Its job: `export`, in six steps: capture the network as it samples and as it is evaluated, lower
what hides its randomness, lift the randomness out, prove that the result is the network, see that
it can be served, write.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from dubito_nn.advice import advise
from dubito_nn.bundle import Bundle, bundle_bytes, load_bundle
from dubito_nn.capturing.capture import Captured, Mode, capture
from dubito_nn.capturing.declared import Declared, Scale, class_names, read_levels, read_scale
from dubito_nn.capturing.example import Example, FreeDims, read_example
from dubito_nn.capturing.explain import explain
from dubito_nn.capturing.inject import inject_dropout
from dubito_nn.capturing.isolation import isolated
from dubito_nn.capturing.unwrapped import unwrapped
from dubito_nn.errors import BundleError, ExportError
from dubito_nn.lifting.evaluated import evaluated as evaluated_of
from dubito_nn.lifting.lift import Lifted, lift
from dubito_nn.lifting.lower import lower, refuse_as_recorded
from dubito_nn.lifting.resting import with_means
from dubito_nn.lifting.rules import is_random
from dubito_nn.lifting.unserved import without_unserved
from dubito_nn.manifest import (
    MAX_TRIAL_ROWS,
    InputSpec,
    Manifest,
    Output,
    Task,
    named_modules,
)
from dubito_nn.preprocess.given import Given, read_given
from dubito_nn.program import Node, Program, pruned
from dubito_nn.proving.granularity import with_granularity
from dubito_nn.proving.prove import prove, two_sizes
from dubito_nn.proving.replayed import UnlikeEvaluationError
from dubito_nn.proving.returned import checked_ending, checked_output
from dubito_nn.trial import refuse_unserved, takes_made_up_rows
from dubito_nn.trial import trial_rows as kept_rows


def export(
    module: nn.Module,
    example_inputs: Example,
    path: str | Path,
    *,
    task: Task,
    output: Output,
    classes: Sequence[str] | None = None,
    output_name: str | int | None = None,
    features: str | None = None,
    target_scale: Scale | None = None,
    drop_prob: Mapping[str, float] | None = None,
    free_dims: FreeDims = None,
    notes: str | None = None,
    class_axis: int | None = None,
    output_axis: int | None = None,
    quantile_levels: Iterable[float] | None = None,
    trial_rows: int = 4,
    preprocess: Given = None,
    deterministic: bool = False,
) -> Bundle:
    """Write a network trained with dropout as a bundle, a pure function f(x, ω).

    The network is copied, never changed, and may be in either mode. Its code may be anything that
    `torch.export` records; every random operation in the recorded graph becomes an input.

    Args:
        module: the trained network; its inputs and output have the rows first.
        example_inputs: one batch: a tensor, a sequence of tensors, or tensors by input name.
        path: file to write, `*.dubito`; its folder must exist.
        task: `classification` (output of shape (rows, C)), `multilabel` (output `sigmoid_logits` of
            shape (rows, L), L labels that are each on or off), `regression` ((rows,) or (rows, D))
            or `sequence` (how likely given tokens are, (rows, length)).
        output: what the numbers are: `logits`, `log_probs`, `probs`, `sigmoid_logits` (one number
            per row, the logit of the second class), `mean`, `mean_and_log_variance` (a pair of
            (rows, D) tensors, or one (rows, 2 D) tensor with the means first), `quantiles`
            ((rows, Q) of one output, (rows, D, Q) of several), or `token_log_probs` (of a sequence,
            (rows, length), alone or in a pair with a mask that is 1 at tokens and 0 at padding).
        classes: names of the C classes or L labels; `0`, `1`, ... where not given.
        output_name: key, attribute or position of the output to serve in a structured return.
        features: path of the module whose output is the feature vector.
        target_scale: mean and standard deviation of the target, where the network was trained on
            the standardised one.
        drop_prob: pattern of module paths (as in `fnmatch`, whose `*` crosses dots) to a drop
            probability in (0, 1) that takes the place of theirs, or of a dropout put behind them;
            of patterns that match one module the last counts. Stated in the manifest.
        free_dims: input name → axis → name of a further dimension that may vary.
        notes: free text kept with the bundle.
        class_axis: axis of the classes in the output of a classification that has a class at every
            position, the rows being axis 0: 1 for (rows, C, height, width), -1 for
            (rows, length, C). Never guessed.
        output_axis: axis of the D outputs in a `mean` or `mean_and_log_variance` that has numbers
            at every position, the rows being axis 0: 1 for (rows, D, height, width), such as the
            (rows, 1, height, width) of a depth map; -1 for (rows, horizon, D). One tensor of means
            and log-variances has 2 D there, the means first. Never guessed.
        quantile_levels: of the Q quantiles in a row's last axis: strictly ascending numbers in
            (0, 1), .5 among them with at least one level on each side; their pairs need not be
            symmetric.
        trial_rows: how many rows of the example's inputs of integers and truth values the bundle
            keeps, readable by whoever has it, where the network fails on invented ones (boxes,
            spans, lengths); a server tries the network out with them. 0: none, and such a network
            is refused.
        preprocess: what makes the inputs of rows as people have them: one part of
            `dubito_nn.preprocess`, or several that make all inputs between them. Kept as data; the
            service runs it, and takes raw rows then.
        deterministic: that the network has no randomness, which is else refused. The bundle says
            so, and is asked with method `point` until a fit of `laplace` gives it a spread.

    Returns:
        The bundle, as read back from the file.

    Raises:
        ExportError: naming the module and the remedy, where the network cannot be served: nothing
            random in it, an unknown random operator, a site that does not change the output, rows
            that interact, data-dependent control flow, batch-norm by batch statistics, or an
            output that is not what was declared; then there is no file.
    """
    declared = Declared(task, output, class_axis, output_axis, read_levels(quantile_levels))
    if not isinstance(path, (str, os.PathLike)) or not Path(path).name:
        raise ExportError(f"path expects the name of a file, got {path!r}: end it in .dubito")
    with isolated():
        network = unwrapped(module)
        captured = capture(
            network,
            read_example(network, example_inputs, free_dims),
            declared=declared,
            output_name=None if output_name is None else str(output_name),
            features=features,
        )
        injected = inject_dropout(captured, {} if drop_prob is None else drop_prob)
        lifted, point = lift_and_prove(captured, deterministic=deterministic)
        injected.refuse_silent()
        declared, num_columns = checked_output(captured, declared)
        held_by = checked_ending(captured, (lifted, point), declared)
        names = class_names(classes, declared, num_columns)
        inputs = _input_specs(captured)
        manifest = Manifest(
            task=task,
            output=output,
            inputs=inputs,
            num_outputs=len(names) if names else num_columns,
            sites=tuple(lifted.sites),
            torch_version=str(torch.__version__),
            classes=names,
            target_scale=read_scale(target_scale, task, num_columns),
            features=features,
            injected=injected.paths,
            notes=notes,
            class_axis=declared.class_axis,
            output_axis=declared.output_axis,
            quantile_levels=declared.quantile_levels,
            preprocess=read_given(preprocess, inputs, captured.inputs.given),
            deterministic=True if deterministic else None,
            free_sizes=lifted.free_sizes or None,
        )
        manifest = replace(manifest, warnings=_warnings(manifest, lifted, captured, held_by))
        content, bundle = _packed(manifest, lifted, point.program)
        if trial_rows and captured.inputs.bounds and not takes_made_up_rows(bundle):
            kept = kept_rows(manifest, captured.inputs.given, min(trial_rows, MAX_TRIAL_ROWS))
            content, bundle = _packed(replace(manifest, trial_rows=kept), lifted, point.program)
        refuse_unserved(bundle, two_sizes(captured))
        _write(Path(path), content)
        return bundle


def lift_and_prove(captured: Captured, *, deterministic: bool = False) -> tuple[Lifted, Lifted]:
    """The lifted graph without what no output needs, and the point graph."""
    try:
        lifted, point = _lifted_and_point(captured, deterministic)
        try:
            lifted = prove(captured, lifted, point)
        except UnlikeEvaluationError:  # more than dropout differs between the modes
            lifted, point = _lifted_and_point(captured, deterministic, is_recorded=True)
            lifted = prove(captured, lifted, point)
        return with_granularity(without_unserved(lifted), captured.example), point
    except ExportError:
        raise
    except Exception as error:  # from torch, or from the network's own code
        where = list(captured.running)
        raise ExportError(captured.eager_reason("sampling") or explain(error, where)) from error


def _lifted_and_point(
    captured: Captured, deterministic: bool = False, *, is_recorded: bool = False
) -> tuple[Lifted, Lifted]:
    """The lifted graph with all its nodes, and the evaluation-mode graph; they share weights.

    Args:
        captured: the network.
        deterministic: that it has no randomness.
        is_recorded: whether evaluation mode is recorded by itself in any case.
    """
    captured.fill_caches()
    traced = captured.trace("sampling")
    made = None if is_recorded else evaluated_of(traced, captured)
    lifted = lift(_recorded(captured, "sampling", traced), captured, draw=True)
    _check_randomness([site.module_path for site in lifted.sites], deterministic)
    # it may have looked at buffers that it changes, as was found only now
    recorded = _recorded(captured, "evaluation", None if captured.changing else made)
    evaluated = lift(recorded, captured, draw=False)
    if any(map(is_random, recorded.graph.nodes)):
        sampled = lift(recorded, captured, draw=True)
        evaluated, off = with_means(sampled, evaluated, captured.example)
        lifted = _with_doubts(lifted, off)
    weights = _shared({**evaluated.weights, **lifted.weights})
    renamed = {key: name for key, (name, _) in weights.items()}
    tensors = {name: tensor for name, tensor in weights.values()}
    sampling = _with_weight_names(lifted.program, renamed)
    point = pruned(_with_weight_names(evaluated.program, renamed))
    evaluated = replace(evaluated, program=point, weights=tensors)
    return replace(lifted, program=sampling, weights=tensors), evaluated


def _check_randomness(paths: Sequence[str], deterministic: bool) -> None:
    """Refuse a network without randomness, unless it is said to be one; and the other way round."""
    if not paths and not deterministic:
        raise ExportError(
            "the network has no random operation that is active in training mode, so all its"
            " samples would be equal: train it with dropout (p > 0), name modules in"
            " drop_prob={pattern: p} to put dropout behind them, or say deterministic=True and"
            " give the version a fit of `laplace` once it is served"
        )
    if paths and deterministic:
        named = named_modules([f"`{path}`" for path in dict.fromkeys(paths)])
        raise ExportError(
            f"deterministic=True expects a network without randomness, got random operations in"
            f" {named}: leave it out, and they are sampled"
        )


def _with_doubts(lifted: Lifted, paths: Sequence[str]) -> Lifted:
    """Say which modules make the point graph something else than a mean."""
    if not paths:
        return lifted
    notice = (
        f"evaluation mode rolls dice in {named_modules([f'`{path}`' for path in paths])}, whose"
        " mean is not that at the means of the draws: method `point` is off there, sample instead"
    )
    return replace(lifted, notices=(*lifted.notices, notice))


def _recorded(
    captured: Captured, mode: Mode, recorded: ExportedProgram | None = None
) -> ExportedProgram:
    """The functional graph; what looks at its weights may look at none that it changes.

    Args:
        captured: the network.
        mode: in which it runs.
        recorded: as it is recorded, where that is known.
    """
    recorded = recorded or captured.trace(mode)
    if mode == "sampling":
        refuse_as_recorded(recorded)
    lowered = lower(recorded)
    written = set(lowered.graph_signature.buffers_to_mutate.values())
    if captured.has_looked and not written <= captured.changing:
        captured.changing |= written
        return _recorded(captured, mode)
    return lowered


def _shared(weights: Mapping[str, Tensor]) -> dict[str, tuple[str, Tensor]]:
    """One stored tensor for weights that are tied."""
    first: dict[tuple[object, ...], str] = {}
    result: dict[str, tuple[str, Tensor]] = {}
    for key, tensor in weights.items():
        mark = (tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype)
        name = first.setdefault(mark, key) if tensor.numel() else key
        result[key] = (name, tensor.contiguous().clone() if name == key else result[name][1])
    return result


def _with_weight_names(program: Program, names: Mapping[str, str]) -> Program:
    def renamed(node: Node) -> Node:
        return replace(node, args=(names[str(node.args[0])],)) if node.op == "weight" else node

    return Program(tuple(renamed(node) for node in program.nodes), program.outputs)


def _input_specs(captured: Captured) -> tuple[InputSpec, ...]:
    specs = []
    for name, tensor in captured.example.items():
        free = captured.inputs.free_dims.get(name, {})
        shape = tuple(free.get(axis, size) for axis, size in enumerate(tensor.shape) if axis)
        low, high = captured.inputs.bounds.get(name, (None, None))
        dtype = str(tensor.dtype).removeprefix("torch.")
        specs.append(InputSpec(name, dtype, shape, low, high))
    return tuple(specs)


def _warnings(
    manifest: Manifest, lifted: Lifted, captured: Captured, held_by: str | None
) -> tuple[str, ...]:
    """What was injected, what the lifting left out, and what the literature warns of."""
    if manifest.deterministic:
        return lifted.notices
    advice = advise(
        lifted.program,
        tuple(lifted.sites),
        paths=lifted.paths,
        modules=dict(captured.module.network.named_modules()),
        integer_inputs=frozenset(captured.inputs.bounds),
        held_by=held_by,
    )
    injected = manifest.injection_warning
    return (*((injected,) if injected else ()), *lifted.notices, *advice)


def _packed(manifest: Manifest, lifted: Lifted, point: Program) -> tuple[bytes, Bundle]:
    """The content of the file, and the bundle as read back from it."""
    used = {
        str(node.args[0])
        for program in (lifted.program, point)
        for node in program.of_kind("weight")
    }
    weights = {key: tensor for key, tensor in lifted.weights.items() if key in used}
    content = bundle_bytes(manifest, lifted.program, point, weights)
    try:
        return content, load_bundle(content)
    except BundleError as error:
        raise ExportError(f"the network cannot be written as a bundle: {error}") from error


def _write(path: Path, content: bytes) -> None:
    """Write a file under a name of its own, and put it in its place."""
    part = path.with_name(path.name + ".part")
    try:
        part.write_bytes(content)
        os.replace(part, path)
    except OSError as error:
        raise ExportError(f"cannot write `{path}`: {error.strerror or error}") from error
