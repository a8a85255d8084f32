"""ONNX Runtime on a graph that PyTorch exports. See common.py for the protocol."""
import os
import time

import common


def versions():
    import onnxruntime
    return {"onnxruntime": onnxruntime.__version__}


def prepare(model, network, _, shapes, folder):
    """Writes the graph with its weights in float32 beside it."""
    import eager
    import onnx
    import onnxscript
    import torch

    path = os.path.join(folder, "model.onnx")
    with torch.inference_mode():
        torch.onnx.export(eager.module(model, network), tuple(eager.zeros(network, shapes)), path, input_names=common.inputs(model, network), output_names=["output"],
                          dynamo=True, external_data=True, optimize=True)
    opset = onnx.load(path, load_external_data=False).opset_import[0].version
    return {"export": f"torch.onnx, opset {opset}, torch {torch.__version__}, onnxscript {onnxscript.__version__}"}


class Network:
    """One network in one session. See common.Child."""

    def __init__(self, model, network, threads, shapes):
        import onnxruntime

        common.needs_memory(model, network, 4)
        folder, result = common.prepared("ort", versions(), model, network, threads, shapes)
        self.notes = {"export": f"{result['export']}, {result['prepare_seconds']} s, not counted"}
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        start = time.perf_counter()
        self.session = onnxruntime.InferenceSession(os.path.join(folder, "model.onnx"), options, providers=["CPUExecutionProvider"])
        self.load_seconds = time.perf_counter() - start
        self.names = common.inputs(model, network)

    def tensors(self, arrays):
        import onnxruntime
        return {name: onnxruntime.OrtValue.ortvalue_from_numpy(array) for name, array in zip(self.names, arrays)}

    def run(self, tensors):
        return self.session.run_with_ort_values(None, tensors)[0]

    def array(self, output):
        return output.numpy()


def engine(_):
    return {"engine": "ONNX Runtime", "versions": versions(), "network": Network}


if __name__ == "__main__":
    common.serve(engine, lambda: ["f32"])  # its CPU provider has no kernels for bfloat16
