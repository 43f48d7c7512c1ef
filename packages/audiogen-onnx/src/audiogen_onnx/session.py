"""Session: an ONNX graph with named numpy inputs and outputs, opened only when its files can be trusted."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from audiogen_core.devices import absent, check
from audiogen_core.errors import ManifestError, ModelError, OptionError
from audiogen_core.threads import check as check_threads
from audiogen_core.values import closed
from audiogen_onnx.graph_file import check_beside, identity, read_graph
from audiogen_onnx.tensors import Tensors

CPU = "CPUExecutionProvider"

Change = Callable[[Tensors], Iterable[tuple[str, NDArray[Any]]]]


class Session:
    """A graph, ready to run.

    path       the .onnx file; its weights lie in it or in files beside it
    providers  onnxruntime's execution providers in order of preference; None means the processor
    threads    of one operator; None lets onnxruntime take every core
    change     gives other numbers for some of the graph's tensors, by name, of their shapes and kinds

    Raises ManifestError when the graph or its data is missing, cut off, a link, or names a file outside
    its folder (before onnxruntime opens anything), or is not a graph onnxruntime can run; OptionError for
    a provider that is not installed or an impossible number of threads.
    """

    @closed()
    def __init__(
        self,
        path: str | Path,
        providers: Sequence[str] | None = None,
        threads: int | None = None,
        change: Change | None = None,
    ) -> None:
        self.path = Path(path)
        graph, instead = read_graph(self.path), dict[str, Any]()
        beside = check_beside(self.path, graph)
        if change is not None:
            graph, instead = _changed(Tensors(self.path, graph), change)
        self._lent = instead  # onnxruntime goes on reading from these arrays
        self._session = _open(self.path, graph, _providers(providers), threads, instead)
        if beside != {path: identity(path) for path in beside}:
            raise ManifestError(f"{self.path}: its data was replaced while it was read; load it again")
        self.inputs: dict[str, str] = {item.name: item.type for item in self._session.get_inputs()}
        self.shapes: dict[str, list[Any]] = {
            item.name: item.shape for item in (*self._session.get_inputs(), *self._session.get_outputs())
        }
        self.outputs: tuple[str, ...] = tuple(item.name for item in self._session.get_outputs())

    def expect(self, inputs: Iterable[str], outputs: Iterable[str]) -> None:
        """Raise ManifestError unless the graph takes and makes what has these names."""
        if self.inputs.keys() != set(inputs) or set(self.outputs) != set(outputs):
            raise ManifestError(
                f"{self.path}: is not the graph that {self.path.stem} of this model is: it takes "
                f"{_listed(self.inputs)}, and makes {_listed(self.outputs)}"[:400]
            )

    @property
    def metadata(self) -> dict[str, str]:
        """What the exporter wrote into the graph, text by key."""
        return dict(self._session.get_modelmeta().custom_metadata_map)

    def bound(
        self, inputs: Mapping[str, NDArray[Any]], outputs: Mapping[str, NDArray[Any]]
    ) -> Callable[[], None]:
        """A run that reads from and writes to arrays where they lie, again and again; nothing is copied.

        The arrays are contiguous, and of the sizes that the graph takes and makes. One array may be an input
        and an output. Raises OptionError when they are not those of the graph; what is returned, ModelError
        when onnxruntime fails inside it.
        """
        import onnxruntime

        if inputs.keys() != self.inputs.keys() or not outputs.keys() <= set(self.outputs):
            raise OptionError(f"{self.path.name} takes {_listed(self.inputs)}, got {_listed(inputs)}")
        binding, errors = self._session.io_binding(), _errors()
        for name, array in inputs.items():
            binding.bind_ortvalue_input(name, onnxruntime.OrtValue.ortvalue_from_numpy(array))
        for name, array in outputs.items():
            binding.bind_ortvalue_output(name, onnxruntime.OrtValue.ortvalue_from_numpy(array))

        def run() -> None:
            try:
                self._session.run_with_iobinding(binding)
            except (errors.Fail, errors.InvalidArgument, errors.RuntimeException, RuntimeError) as error:
                raise ModelError(f"{self.path.name} failed while running: {_first_line(error)}") from error

        return run

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """The outputs by name.

        Raises OptionError when the inputs are not those of the graph (names, dtypes, shapes), and
        ModelError when onnxruntime fails inside it.
        """
        if inputs.keys() != self.inputs.keys():
            raise OptionError(
                f"{self.path.name} takes {_listed(self.inputs)}, got {_listed(inputs) or 'nothing'}"
            )
        arrays = {name: np.asarray(array, order="C") for name, array in inputs.items()}
        errors = _errors()
        try:
            results = self._session.run(list(self.outputs), arrays)
        except errors.InvalidArgument as error:
            raise OptionError(f"{self.path.name} cannot take these inputs: {_first_line(error)}") from error
        except (errors.Fail, errors.RuntimeException, errors.EPFail, errors.NotImplemented) as error:
            raise ModelError(f"{self.path.name} failed while running: {_first_line(error)}") from error
        return dict(zip(self.outputs, results, strict=True))


_OF = {
    "cuda": ("CUDAExecutionProvider",),
    "mps": ("CoreMLExecutionProvider",),
    "gpu": (
        "CUDAExecutionProvider",
        "ROCMExecutionProvider",
        "MIGraphXExecutionProvider",
        "CoreMLExecutionProvider",
        "DmlExecutionProvider",
    ),
}
"""Devices -> the execution providers that compute on them, the first there is."""


def providers_of(device: str, providers: Sequence[str] | None = None) -> Sequence[str] | None:
    """The execution providers that stand for a device, or those that were named; None means the processor.

    Raises OptionError for both, and for a device that this onnxruntime has no provider for.
    """
    check(device)
    if providers and device != "auto":
        raise OptionError("give device or providers, not both", "device", "providers")
    if providers or device in ("auto", "cpu"):
        return providers or None
    import onnxruntime

    kind, _, number = device.partition(":")
    found = [name for name in _OF[kind] if name in onnxruntime.get_available_providers()]
    if not found or int(number or 0):
        raise absent(device, "onnxruntime")
    return (found[0], CPU)  # the processor takes what the other cannot


def _providers(wanted: Sequence[str] | None) -> list[str]:
    import onnxruntime

    names = [CPU] if wanted is None else list(wanted)
    known: list[str] = onnxruntime.get_available_providers()
    unknown = [name for name in names if name not in known]
    if unknown or not names:
        raise OptionError(
            f"execution provider {', '.join(unknown) or 'missing'}: this onnxruntime has {', '.join(known)}"
        )
    return names


def _changed(tensors: Tensors, change: Change) -> tuple[bytes, dict[str, Any]]:
    """A graph with other numbers in it, and what goes in the place of its tensors in files."""
    from onnxruntime import OrtValue

    instead = {}
    for name, values in change(tensors):
        if (put := tensors.put(name, values)) is not None:
            instead[name] = OrtValue.ortvalue_from_numpy_with_onnx_type(put, tensors.kind(name))
    return tensors.graph, instead


def _open(
    path: Path, graph: bytes, providers: list[str], threads: int | None, instead: Mapping[str, Any]
) -> Any:
    """A session of the bytes that were checked: what the file holds by now is not read again.

    instead  tensors in the place of some that lie in files
    """
    import onnxruntime

    if threads is not None:
        check_threads(threads)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or 0
    options.log_severity_level = 3  # errors only: its warnings speak of what cannot be helped here
    # A file can be a whole ONNX graph and onnxruntime's own format as well, which is another graph.
    options.add_session_config_entry("session.load_model_format", "ONNX")
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(path.parent))
    if instead:
        options.add_external_initializers(list(instead), list(instead.values()))
    errors = _errors()
    refusals = (
        errors.Fail,
        errors.InvalidArgument,
        errors.InvalidGraph,
        errors.InvalidProtobuf,
        errors.NoModel,
        errors.NoSuchFile,
        errors.NotImplemented,
        errors.RuntimeException,
        errors.EPFail,
    )
    try:
        return onnxruntime.InferenceSession(graph, options, providers=providers)
    except refusals as error:
        raise ManifestError(f"{path}: onnxruntime cannot open this graph: {_first_line(error)}") from error


@cache
def _errors() -> Any:
    """The module where onnxruntime keeps its exceptions."""
    from onnxruntime.capi import onnxruntime_pybind11_state

    return onnxruntime_pybind11_state


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names)


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0][:300]
