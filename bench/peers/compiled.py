"""torch.compile in its default mode: inductor, which writes C++ and needs a compiler and Python's headers.

Loading includes the first run, in which it traces the network and takes the code from its cache. See common.py for the
protocol.
"""
import os
import shutil
import sysconfig
import time

import common
import eager


def start(threads):
    """Inductor keeps its code in a folder that the process which compiles and the one that is measured share."""
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = os.path.join(common.cache_root(), "inductor")
    eager.set_threads(threads)


def compiled(module):
    import torch
    return torch.compile(module, dynamic=False)


def prepare(model, network, threads, shapes, _):
    import torch
    start(threads)
    if network == "image":
        Image(model, threads, shapes, prepared=True)
        return {}
    with torch.inference_mode():
        inputs = eager.cast(model, network, eager.zeros(network, shapes))
        if network.startswith("text_encoder"):
            compiled(eager.loaded(model, network))(*inputs)
            return {"chosen": "channels_first"}
        return eager.faster_layout(lambda name: compiled(eager.to_layout(eager.loaded(model, network), name)), lambda of: of(*inputs))


class Network(eager.Network):
    """One network, compiled. See common.Child."""

    def __init__(self, model, network, threads, shapes):
        import torch
        common.needs_memory(model, network, 3)
        layout = common.prepared("compiled", eager.versions() | {"precision": common.PRECISION}, model, network, threads, shapes)[1]
        self.notes = {"compile": f"{layout['prepare_seconds']} s for every layout with trials, not counted"}
        if not network.startswith("text_encoder"):
            self.notes["memory_format"] = eager.layout_note(layout)
        eager.network_class(network)
        self.model, self.network = model, network
        start = time.perf_counter()
        self.module = compiled(eager.to_layout(eager.loaded(model, network), layout["chosen"]))
        self.weights_seconds = time.perf_counter() - start
        with torch.inference_mode():
            self.module(*eager.cast(model, network, eager.zeros(network, shapes)))
        self.load_seconds = time.perf_counter() - start
        self.notes["load"] = f"weights in {self.weights_seconds:.2f} s, then the first run with its tracing"


class Image(eager.Image):
    """The pipeline with its U-Net and decoder compiled. See common.Child."""

    def __init__(self, model, threads, size, prepared=False):
        super().__init__(model, threads, size)
        if not prepared:
            result = common.prepared("compiled", eager.versions() | {"precision": common.PRECISION}, model, "image", threads, size)[1]
            self.notes["compile"] = f"{result['prepare_seconds']} s, not counted"
        start = time.perf_counter()
        self.pipe.unet = compiled(self.pipe.unet)
        self.pipe.vae.decode = compiled(self.pipe.vae.decode)
        self.run({"prompt": "", "negative_prompt": "", "steps": 1, "guidance_scale": 7.5, "height": size[0], "width": size[1], "seed": 0})
        self.load_seconds += time.perf_counter() - start


def engine(threads):
    found = eager.versions()
    if not any(shutil.which(name) for name in (os.environ.get("CXX"), "g++", "clang++") if name):
        raise common.NoPeer("inductor needs a C++ compiler: g++, clang++ or the one named by CXX")
    if not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")):
        raise common.NoPeer("inductor needs Python.h: the development files of this Python (Debian: python3-dev)")
    start(threads)
    return {"engine": "torch.compile", "versions": found, "network": Network, "image": Image}


if __name__ == "__main__":
    common.serve(engine, eager.precisions)
