"""A pytest plugin (-p emulated_cuda): a torch without CUDA gets a device "cuda", on which our kernels run emulated.

The environment variable MDGNN_EMULATION is plain (default) or checked; MDGNN_EMULATION_ORDER is forward (default),
backward or random:SEED.
"""

import contextlib
import ctypes
import os
from importlib.util import find_spec
from pathlib import Path

import pytest
from sample import pytest_addoption, pytest_collection_modifyitems  # noqa: F401

BUILT = Path(__file__).parents[2] / "build" / "emulation"
MODE = os.environ.get("MDGNN_EMULATION", "plain")
TORCH = Path(find_spec("torch").submodule_search_locations[0])
if (TORCH / "lib" / "libtorch_cuda.so").exists():
    raise pytest.UsageError(
        f"expected a torch built for the CPU alone, whose device cuda is free for the emulated one, got {TORCH}"
    )
# Before torch, which asks once whether there is CUDA.
device_library = ctypes.CDLL(str(BUILT / "libtorch_device.so"), mode=ctypes.RTLD_GLOBAL)

import torch  # noqa: E402

import mdgnn  # noqa: E402

mdgnn.__path__.append(str(BUILT / MODE))  # its _C_cuda: the installed package stays as it is

device_library.emulation_begin_capture.restype = ctypes.c_void_p
device_library.emulation_is_capturing.restype = ctypes.c_bool
device_library.emulation_replay.argtypes = device_library.emulation_destroy.argtypes = [ctypes.c_void_p]
device_library.emulation_replay.restype = device_library.emulation_launched_kernels.restype = ctypes.c_char_p
device_library.emulation_set_checked(MODE != "plain")
ORDER = os.environ.get("MDGNN_EMULATION_ORDER", "forward")
device_library.emulation_set_order(ORDER.encode())

DEVICE = torch.device("cuda", 0)


@contextlib.contextmanager
def order_of_threads(order):
    """Of blocks and threads, for a while."""
    device_library.emulation_set_order(order.encode())
    try:
        yield
    finally:
        device_library.emulation_set_order(ORDER.encode())


def synchronize(device=None):
    if device_library.emulation_is_capturing():
        raise RuntimeError("CUDA error: operation not permitted when stream is capturing (emulated)")


class Stream:
    """Every stream is the machine's one, in which all that was given is done."""

    def __init__(self, device=None, priority=0):
        self.cuda_stream, self.device = id(self), DEVICE

    def synchronize(self):
        synchronize()

    def wait_stream(self, stream):
        pass

    def wait_event(self, event):
        pass

    def query(self):
        return True


class Event:
    def __init__(self, enable_timing=False):
        pass

    def record(self, stream=None):
        pass

    def synchronize(self):
        synchronize()


default_stream = Stream()
default_stream.cuda_stream = 0
current_streams = [default_stream]


@contextlib.contextmanager
def use_stream(stream):
    current_streams.append(stream)
    try:
        yield stream
    finally:
        current_streams.pop()


def set_stream(stream):
    current_streams[-1] = stream


class CUDAGraph:
    def __init__(self):
        self.steps = None

    def replay(self):
        if error := device_library.emulation_replay(self.steps):
            raise RuntimeError(error.decode())

    def reset(self):
        if self.steps:
            device_library.emulation_destroy(self.steps)
            self.steps = None

    __del__ = reset


@contextlib.contextmanager
def capture(graph, pool=None, stream=None, capture_error_mode="global"):
    graph.steps = device_library.emulation_begin_capture()
    try:
        with use_stream(stream or Stream()):
            yield
    finally:
        device_library.emulation_end_capture()


@contextlib.contextmanager
def use_device(device):
    yield


def in_bytes(storage):
    """A copy of a storage, for which torch would call its library."""
    if storage.device.type != "cuda":
        return type(storage)(storage.nbytes(), device=storage.device).copy_(storage)
    return torch.empty(0, dtype=torch.uint8, device="cuda").set_(storage).clone().untyped_storage()


NO_RANDOM_STATE = torch.zeros(16, dtype=torch.uint8)
for name, replacement in {
    "CUDAGraph": CUDAGraph,
    "Event": Event,
    "Stream": Stream,
    "_lazy_init": lambda: None,
    "current_device": lambda: 0,
    "current_stream": lambda device=None: current_streams[-1],
    "default_stream": lambda device=None: default_stream,
    "device": use_device,
    "device_count": lambda: 1,
    "empty_cache": lambda: None,
    "get_device_capability": lambda device=None: (9, 0),
    "get_device_name": lambda device=None: "emulated",
    "get_rng_state": lambda device=None: NO_RANDOM_STATE,
    "get_rng_state_all": lambda: [],
    "graph": capture,
    "is_available": lambda: True,
    "is_current_stream_capturing": lambda: device_library.emulation_is_capturing(),
    "is_initialized": lambda: True,
    "manual_seed": lambda seed: None,
    "manual_seed_all": lambda seed: None,
    "mem_get_info": lambda device=None: (8 << 30, 8 << 30),
    "set_device": lambda device: None,
    "set_rng_state": lambda state, device=None: None,
    "set_rng_state_all": lambda states: None,
    "set_stream": set_stream,
    "stream": use_stream,
    "synchronize": synchronize,
}.items():
    setattr(torch.cuda, name, replacement)
torch.cuda.random.get_rng_state = torch.cuda.get_rng_state
torch.cuda.random.set_rng_state = torch.cuda.set_rng_state
for name, replacement in {
    "_cuda_exchangeDevice": lambda device: 0,
    "_cuda_getCurrentRawStream": lambda device: 0,
    "_cuda_getDevice": lambda: 0,
    "_cuda_maybeExchangeDevice": lambda device: 0,
    "_cuda_setDevice": lambda device: None,
}.items():
    setattr(torch._C, name, replacement)
torch.storage._StorageBase.clone = in_bytes


def pytest_report_header():
    return f"CUDA is emulated ({MODE})"
