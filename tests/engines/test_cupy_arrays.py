"""CuPy's arrays as an engine's memory, with a stand-in for CuPy (`fake_cupy.py`); names are those of the real one."""

from __future__ import annotations

import gc
import sys
import weakref

import numpy as np
import pytest
from fake_cupy import Device, Stream, fake_cupy

from id3pm.engines.cupy_arrays import CupyArrays
from id3pm.errors import EngineError, MissingExtraError
from id3pm.export.targets import gpu_here


@pytest.fixture(autouse=True)
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, module in fake_cupy().items():
        monkeypatch.setitem(sys.modules, name, module)


def test_copies_are_enqueued_on_the_stream_and_waited_for_by_their_reader_alone() -> None:
    arrays = CupyArrays(1)
    given = arrays.host((2, 3))
    given[...] = 7.0
    there = arrays.from_host(given)
    assert np.isnan(there.numbers).all(), "nothing has been copied yet"
    back = arrays.to_host(there)
    np.testing.assert_array_equal(back(), given)
    assert there.numbers.dtype == np.float32


def test_a_thread_that_uses_them_has_their_device_and_stream() -> None:
    arrays = CupyArrays(1)
    Device.current, Stream.current = 0, None
    arrays.use()
    assert Device.current == 1 and Stream.current is not None and Stream.current.ptr == arrays.stream
    assert arrays.capability == "sm86"


def test_a_copy_to_the_host_waits_for_what_is_enqueued_and_its_reader_for_nothing_later() -> None:
    arrays = CupyArrays()
    compute, done = Stream.current, []
    assert compute is not None
    there = arrays.zeros((2,))
    compute.enqueue(lambda: there.numbers.fill(3.0))
    read = arrays.to_host(there)
    compute.enqueue(lambda: done.append("the next step"))
    assert not done and (read() == 3.0).all()
    assert not done, "the step that was enqueued later is still to come"
    arrays.synchronize()
    assert done == ["the next step"]


def test_a_step_waits_for_no_copy_to_the_host() -> None:
    arrays = CupyArrays()
    read = arrays.to_host(arrays.zeros((2,)))
    arrays.synchronize()
    assert len(arrays._copies.waiting) == 3, "for the event, the copy, its own event"
    assert (read() == 0.0).all() and not arrays._copies.waiting


def test_what_is_computed_already_is_read_beside_the_step_under_way() -> None:
    arrays = CupyArrays(1)
    compute, done = Stream.current, []
    assert compute is not None
    given = arrays.host((2,))
    given[...] = 4.0
    there, kept = arrays.from_host(given), weakref.ref(given)
    arrays.synchronize()
    del given
    compute.enqueue(lambda: done.append("the step under way"))
    Device.current = 0
    with arrays.reading():
        assert Device.current == 1
        read = arrays.to_host(there)
    assert (Device.current, Stream.current) == (0, compute)
    assert (read() == 4.0).all() and not done
    with arrays.reading():
        arrays.to_host(there)
    gc.collect()
    assert kept() is not None, "what copies to the device read is not freed by an event that does not follow them"


def test_memory_of_a_copy_without_a_waiting_caller_is_kept_until_it_is_done() -> None:
    arrays = CupyArrays()
    arrays.to_host(arrays.zeros((2,)))  # the function that would wait is dropped, as after a failure
    kept = [weakref.ref(memory) for memory in arrays._kept[0][1]]
    gc.collect()
    assert len(kept) == 2 and all(memory() is not None for memory in kept), "of the device, and of the host"
    arrays._copies.synchronize()
    arrays.to_host(arrays.zeros((2,)))
    gc.collect()
    assert not any(memory() for memory in kept)


def test_memory_that_a_copy_reads_is_kept_until_it_is_done_though_its_owner_has_gone() -> None:
    arrays = CupyArrays()
    given = arrays.host((3,))
    given[...] = 5.0
    there, kept = arrays.from_host(given), weakref.ref(given)
    del given
    gc.collect()
    assert kept() is not None
    wait = arrays.to_host(there)
    gc.collect()
    assert kept() is not None, "enqueued, not done"
    assert (wait() == 5.0).all()
    arrays.to_host(there)
    gc.collect()
    assert kept() is None


def test_a_graph_does_again_what_was_enqueued_while_it_was_recorded() -> None:
    arrays = CupyArrays()
    source, target = arrays.host((3,)), arrays.zeros((3,))
    source[...] = 1.0
    stream = Stream.current
    assert stream is not None
    replay = arrays.record(lambda: target.data.copy_from_host_async(source.ctypes.data, source.nbytes, stream))
    arrays.synchronize()
    assert not target.numbers.any(), "recorded, not executed"
    for value in (2.0, 3.0):
        source[...] = value
        replay()
        arrays.synchronize()
        assert (target.numbers == value).all()
    stream.can_record = False
    with pytest.raises(EngineError, match="no CUDA graph: cudaErrorStreamCaptureInvalidated"):
        arrays.record(lambda: None)
    np.testing.assert_array_equal(arrays.to_host(target)(), source)


def test_a_timer_counts_on_the_device_from_where_it_was_enqueued() -> None:
    arrays = CupyArrays()
    timer = arrays.timer()
    events = [arrays.timer() for _ in range(3)]
    timer.stop()
    assert timer.seconds() == pytest.approx(0.004)
    assert len(events) == 3


def test_a_device_that_cuda_does_not_have_is_named() -> None:
    with pytest.raises(EngineError, match="CUDA device 5: cudaErrorInvalidDevice"):
        CupyArrays(5)


def test_missing_cupy_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.raises(MissingExtraError, match=r"CuPy is not installed; run: pip install .*\[cuda\]"):
        CupyArrays()


def test_the_real_package_has_all_that_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    """It needs no GPU to be asked."""
    monkeypatch.undo()
    cupy = pytest.importorskip("cupy", reason="not installed: the extra cuda")
    cupyx = pytest.importorskip("cupyx")
    for owner, names in {
        cupy: ("empty", "zeros", "ascontiguousarray"),
        cupy.ndarray: ("data", "dtype", "shape", "__cuda_array_interface__"),
        cupy.cuda: ("Device", "Stream", "Event", "get_current_stream", "get_elapsed_time"),
        cupy.cuda.MemoryPointer: ("copy_from_host_async", "copy_to_host_async", "ptr"),
        cupy.cuda.Device: ("compute_capability", "use"),
        cupy.cuda.Stream: ("begin_capture", "end_capture", "synchronize", "use", "wait_event"),
        cupy.cuda.Event: ("done", "record", "synchronize"),
        cupy.cuda.Graph: ("launch",),
        cupy.cuda.runtime: ("CUDARuntimeError", "streamCaptureModeThreadLocal"),
        cupyx: ("empty_pinned",),
    }.items():
        assert [name for name in names if not hasattr(owner, name)] == [], owner
    for name in ("take", "concat", "stack", "reshape", "isfinite", "all", "abs", "exp", "sort", "mean", "where"):
        assert hasattr(pytest.importorskip("array_api_compat.cupy"), name)
    try:
        count = cupy.cuda.runtime.getDeviceCount()
    except cupy.cuda.runtime.CUDARuntimeError:
        count = 0
    if count == 0:
        with pytest.raises(EngineError, match="CuPy cannot use CUDA device 0"):
            CupyArrays()
        assert gpu_here() is None
