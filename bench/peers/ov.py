"""OpenVINO's CPU plugin on a graph converted from PyTorch. See common.py for the protocol."""
import os
import time

import common


def versions():
    import openvino
    return {"openvino": openvino.__version__}


def prepare(model, network, _, shapes, folder):
    """Writes the graph as OpenVINO's own files."""
    import eager
    import openvino
    import torch

    with torch.inference_mode():
        graph = openvino.convert_model(eager.module(model, network), example_input=tuple(eager.zeros(network, shapes)), input=[tuple(shape) for shape in shapes])
    openvino.save_model(graph, os.path.join(folder, "model.xml"), compress_to_fp16=False)
    return {"export": f"openvino.convert_model of the torch module, torch {torch.__version__}, weights saved as float32"}


class Network:
    """One network in one compiled model. See common.Child."""

    def __init__(self, model, network, threads, shapes):
        import openvino

        common.needs_memory(model, network, 4)
        folder, result = common.prepared("ov", versions(), model, network, threads, shapes)
        self.notes = {"export": f"{result['export']}, {result['prepare_seconds']} s, not counted"}
        start = time.perf_counter()
        core = openvino.Core()
        self.request = core.compile_model(os.path.join(folder, "model.xml"), "CPU", {
            "INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": common.PRECISION, "PERFORMANCE_HINT": "LATENCY"}).create_infer_request()
        self.load_seconds = time.perf_counter() - start

    def tensors(self, arrays):
        import openvino
        return [openvino.Tensor(array) for array in arrays]

    def run(self, tensors):
        return self.request.infer(tensors)[0]

    def array(self, output):
        return output


def precisions():
    """What the plugin takes unasked, bfloat16 where the processor has it, and float32."""
    import openvino
    return list(dict.fromkeys([openvino.Core().get_property("CPU", "INFERENCE_PRECISION_HINT").to_string(), "f32"]))


def engine(_):
    return {"engine": "OpenVINO", "versions": versions(), "network": Network}


if __name__ == "__main__":
    common.serve(engine, precisions)
