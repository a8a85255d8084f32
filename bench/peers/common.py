"""What the engines of bench/peers share: the protocol, the cache of what they export, and a check of all of them.

    python bench/peers/ENGINE.py MODEL_DIR NETWORK THREADS        # one child process: one engine, one network
    python bench/peers/common.py --selftest MODEL_DIR [--engine E] [--network N] [--batch B] [--repeats R]

The second runs every engine and network on inputs it makes, prints times, memory and the difference from PyTorch eager,
and ends with 1 if one fails. The rest is the child: MODEL_DIR in diffusers layout, NETWORK one of text_encoder, unet,
vae_decoder, image, of Stable Diffusion XL text_encoder_2, or upscaler, whose directory has a network of ESRGAN and no other.

Lines of JSON on stdin and stdout, one answer for each request. The first line of stdout comes unasked:
    {"engine", "versions", "threads", "notes"}, or {"error": why there is no such peer} and the process ends.
Requests and answers, or {"error": text}:
    {"op": "run", "inputs": {NAME: {"shape", "dtype": "f32" | "i64", "file"}}}
        -> {"seconds", "output": {"shape", "file"}}; sdcpp takes nothing but shapes, and its output is null.
    {"op": "image", "prompt", "negative_prompt", "steps", "guidance_scale", "height", "width", "seed"}, sizes in pixels
        -> {"seconds", "output": {"file"}}: a PNG file, beside the cache
    {"op": "rss"} -> {"peak_rss_bytes"}: VmHWM
    {"op": "reset_rss"} -> {}: VmHWM becomes what is resident now
"ENGINE.py precisions" prints the types that the engine can compute in on this machine, a list of "f32", "bf16", "f16" with
the one it takes unasked at first. TRIPTYCH_BENCH_PRECISION names the one to run in, "f32" by default.

Files of tensors are raw, little-endian and contiguous; each output is a new file beside the first input, for the caller
to delete. Seconds are of the network alone: from its inputs as the engine's tensors to its output in memory.

All engines load in the first run, once its shapes are known, and again when shapes change, because the best layout, an
exported graph and compiled code are of one shape. That answer also has "load_seconds" (from the files to ready for the
run; no imports, no exports) and "notes" (to add to those of the first line). Exports, and what else is done once for a
shape, happen before that in a process of their own, whose seconds are in the notes, and are kept in the folder
TRIPTYCH_BENCH_CACHE (bench/.cache by default). Nothing is fetched from the network.
"""
import argparse
import glob
import hashlib
import importlib.metadata
import json
import os
import shutil
import struct
import subprocess
import sys
import tempfile
import time

import numpy

os.environ["HF_HUB_OFFLINE"] = "1"
HERE = os.path.dirname(os.path.abspath(__file__))
DTYPES = {"f32": "<f4", "i64": "<i8"}
PRECISION = os.environ.get("TRIPTYCH_BENCH_PRECISION", "f32")
FOLDERS = {"text_encoder": "text_encoder", "text_encoder_2": "text_encoder_2", "unet": "unet", "vae_decoder": "vae", "upscaler": ""}
WEIGHTS = {"text_encoder": "model.safetensors", "text_encoder_2": "model.safetensors"}  # and in other folders:
OTHER_WEIGHTS = "diffusion_pytorch_model.safetensors"


class NoPeer(Exception):
    """The engine cannot run this network here; its text says why."""


def config(model, folder):
    with open(os.path.join(model, folder, "config.json")) as file:
        return json.load(file)


def weights(model, folder):
    return os.path.join(model, folder, WEIGHTS.get(folder, OTHER_WEIGHTS))


def is_xl(model):
    return os.path.exists(weights(model, "text_encoder_2"))


def networks(model):
    """Those of a pipeline's directory."""
    return [network for network in FOLDERS if network != "upscaler" and (network != "text_encoder_2" or is_xl(model))]


def inputs(model, network):
    """The names of a network's inputs, in the order in which the engines take them."""
    if network == "unet":
        return ["sample", "timestep", "encoder_hidden_states"] + (["text_embeds", "time_ids"] if is_xl(model) else [])
    return {"vae_decoder": ["latents"], "upscaler": ["image"]}.get(network, ["input_ids"])


def needs_memory(model, network, copies):
    """Refuses a network of whose weights in float32 memory does not hold so many copies."""
    with open("/proc/meminfo") as file:
        available = next(1024 * int(line.split()[1]) for line in file if line.startswith("MemAvailable:"))
    size = {"F16": 2, "BF16": 2, "F32": 1}[stored(model, network)] * os.path.getsize(weights(model, FOLDERS[network]))
    if copies * size > available:
        raise NoPeer(f"needs about {copies} times the {size / 1e9:.1f} GB of its weights in float32, there are {available / 1e9:.1f} GB")


def stored(model, network):
    """The type of the first weight in the file, for the notes."""
    with open(weights(model, FOLDERS.get(network, "unet")), "rb") as file:
        header = json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))
    return next(entry["dtype"] for name, entry in header.items() if name != "__metadata__")


def cpu_has_bfloat16():
    """Whether the processor has instructions that multiply bfloat16, whatever an engine makes of them."""
    with open("/proc/cpuinfo") as file:
        return not {"avx512_bf16", "amx_bf16", "bf16"}.isdisjoint(file.read().split())


def cache_root():
    root = os.environ.get("TRIPTYCH_BENCH_CACHE") or os.path.join(os.path.dirname(HERE), ".cache")
    os.makedirs(root, exist_ok=True)
    return os.path.abspath(root)


def prepared(kind, versions, model, network, threads, shapes):
    """The folder of what `kind` (a module of bench/peers) makes once of the network at these shapes, and its result.

    On a miss a process of its own calls the module's `prepare(model, network, threads, shapes, folder)`, which returns
    something for JSON. The result gets the seconds that took as "prepare_seconds".
    """
    folders = [""] if network == "upscaler" else sorted(FOLDERS[of] for of in networks(model))
    files = [os.stat(weights(model, folder)) for folder in folders]
    identity = [os.path.realpath(model), [(s.st_size, s.st_mtime_ns) for s in files], network, threads, shapes, versions, importlib.metadata.version("torch")]
    folder = os.path.join(cache_root(), f"{kind}-{network}-{hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:16]}")
    result = os.path.join(folder, "result.json")
    if not os.path.exists(result):
        shutil.rmtree(folder, ignore_errors=True)
        os.makedirs(folder)
        code = "import json, sys, importlib; a = json.loads(sys.argv[1]); json.dump(importlib.import_module(a[0]).prepare(*a[1:]), open(sys.argv[2], 'w'))"
        start = time.perf_counter()
        done = subprocess.run([sys.executable, "-c", code, json.dumps([kind, model, network, threads, shapes, folder]), result + ".part"],
                              stdin=subprocess.DEVNULL, stdout=sys.stderr, env=os.environ | {"PYTHONPATH": HERE})
        if done.returncode != 0:
            raise NoPeer(f"preparing {kind} for {network} {shapes} ended with {done.returncode}; stderr has the reason")
        with open(result + ".part") as file:
            values = json.load(file)
        values["prepare_seconds"] = round(time.perf_counter() - start, 1)
        with open(result + ".part", "w") as file:
            json.dump(values, file)
        os.replace(result + ".part", result)
    with open(result) as file:
        return folder, json.load(file)


def peak_rss():
    with open("/proc/self/status") as status:
        return next(1024 * int(line.split()[1]) for line in status if line.startswith("VmHWM:"))


def reset_rss():
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")


def read(tensor):
    return numpy.fromfile(tensor["file"], DTYPES[tensor["dtype"]]).reshape(tensor["shape"])


def write(array, folder):
    handle, path = tempfile.mkstemp(prefix="output-", suffix=".f32", dir=folder)
    with os.fdopen(handle, "wb") as file:
        file.write(numpy.ascontiguousarray(array, "<f4").tobytes())
    return {"shape": list(array.shape), "file": path}


class Child:
    """Answers requests by an engine's class of networks.

    network(model, name, threads, shapes) loads one; it has notes, load_seconds, tensors(arrays), run(tensors) and
    array(output). image(model, threads, size) loads the whole pipeline for an image of (height, width) pixels; it has
    notes, load_seconds and run(request), which returns seconds and the bytes of a PNG file.
    """

    def __init__(self, model, name, threads, network, image):
        self.model, self.name, self.threads = model, name, threads
        self.make_network, self.make_image = network, image
        self.loaded, self.shapes = None, None

    def load(self, shapes, make):
        """The fields that this adds to an answer: none if it is loaded already."""
        if self.shapes == shapes:
            return {}
        self.loaded, self.shapes = None, None
        self.loaded = make()
        self.shapes = shapes
        return {"load_seconds": self.loaded.load_seconds, "notes": self.loaded.notes}

    def run(self, q):
        names = inputs(self.model, self.name)
        shapes = [q["inputs"][name]["shape"] for name in names]
        more = self.load(shapes, lambda: self.make_network(self.model, self.name, self.threads, shapes))
        arrays = [read(q["inputs"][name]) for name in names]
        tensors = self.loaded.tensors(arrays)
        start = time.perf_counter()
        output = self.loaded.run(tensors)
        seconds = time.perf_counter() - start
        return {"seconds": seconds, "output": write(self.loaded.array(output), os.path.dirname(q["inputs"][names[0]]["file"]))} | more

    def image(self, q):
        size = (q["height"], q["width"])
        more = self.load(size, lambda: self.make_image(self.model, self.threads, size))
        seconds, png = self.loaded.run(q)
        handle, path = tempfile.mkstemp(prefix="image-", suffix=".png", dir=cache_root())
        with os.fdopen(handle, "wb") as file:
            file.write(png)
        return {"seconds": seconds, "output": {"file": path}} | more

    def rss(self, _):
        return {"peak_rss_bytes": peak_rss()}

    def reset_rss(self, _):
        reset_rss()
        return {}

    def serve(self, answer):
        operations = {"rss": self.rss, "reset_rss": self.reset_rss} | ({"image": self.image} if self.name == "image" else {"run": self.run})
        for line in sys.stdin:
            try:
                q = json.loads(line)
                answer(**operations[q["op"]](q))
            except Exception as problem:  # whatever a library raises is an answer
                answer(error=explain(problem))


def explain(problem):
    if isinstance(problem, NoPeer):
        return str(problem)
    return f"{type(problem).__name__}: {problem}" + ("; `make bench-env` installs what the peers need" if isinstance(problem, ImportError) else "")


def serve(load_engine, precisions):
    """Run this process as a child. load_engine(threads) imports the engine and returns a dictionary:
    engine, versions, network, and optionally image, notes, child (a subclass of Child). precisions() is the list that
    "precisions" prints."""
    if sys.argv[1:] == ["precisions"]:
        return print(json.dumps(precisions()))
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print must not come between the answers

    def answer(**fields):
        answers.write(json.dumps(fields) + "\n")
        answers.flush()

    if len(sys.argv) != 4:
        sys.exit("usage: ENGINE.py MODEL_DIR NETWORK THREADS")
    model, network, threads = sys.argv[1], sys.argv[2], int(sys.argv[3])
    try:
        if network != "image" and network not in FOLDERS:
            raise NoPeer(f"network {network!r} is none of {', '.join(FOLDERS)}, image")
        e = load_engine(threads)
        if network == "image" and "image" not in e:
            raise NoPeer("runs single networks alone, not the whole image")
        notes = {"weights": f"{stored(model, network)} in the file, computes in {PRECISION}"}
        answer(engine=e["engine"], versions=e["versions"] | {"python": sys.version.split()[0]}, threads=threads, notes=notes | e.get("notes", {}))
    except Exception as problem:  # whatever a library raises ends the peer, and bench tells it
        return answer(error=explain(problem))
    e.get("child", Child)(model, network, threads, e["network"], e.get("image")).serve(answer)


def arguments(model, network, batch, random):
    """Inputs of the model's own size for the self-test."""
    unet, vae, text = (config(model, folder) for folder in ("unet", "vae", "text_encoder"))
    side = unet["sample_size"]
    make = {
        "input_ids": lambda: random.integers(0, text["vocab_size"] - 2, (batch, 77)),
        "sample": lambda: random.standard_normal((batch, unet["in_channels"], side, side), "f4"), "timestep": lambda: numpy.array([500], "f4"),
        "encoder_hidden_states": lambda: random.standard_normal((batch, 77, unet["cross_attention_dim"]), "f4"),
        "text_embeds": lambda: random.standard_normal((batch, unet["projection_class_embeddings_input_dim"] - 6 * unet["addition_time_embed_dim"]), "f4"),
        "time_ids": lambda: numpy.array([[8 * side, 8 * side, 0, 0, 8 * side, 8 * side]] * batch, "f4"),
        "latents": lambda: random.standard_normal((1, vae["latent_channels"], side, side), "f4"),
    }
    return {name: make[name]() for name in inputs(model, network)}


def ask(child, **request):
    child.stdin.write(json.dumps(request) + "\n")
    child.stdin.flush()
    reply = child.stdout.readline()
    return json.loads(reply) if reply else {"error": "the child ended"}


def check(engine, model, network, options, folder, reference):
    """One line of the self-test's table; returns whether it is as it must be."""
    child = subprocess.Popen([sys.executable, os.path.join(HERE, engine + ".py"), model, network, str(options.threads)],
                             stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    replies = []
    try:
        hello = json.loads(child.stdout.readline() or '{"error": "the child ended"}')
        if "error" in hello:
            print(f"{engine:9} {network:13} no peer: {hello['error']}", flush=True)
            return True
        if network == "image":
            request = {"op": "image", "prompt": "a photo of a cat", "negative_prompt": "", "steps": 2, "guidance_scale": 7.5, "seed": 1,
                       "height": config(model, "vae")["sample_size"], "width": config(model, "vae")["sample_size"]}
        else:
            arrays = {}
            for name, array in arguments(model, network, options.batch, numpy.random.default_rng(1)).items():
                array.tofile(os.path.join(folder, name))
                arrays[name] = {"shape": list(array.shape), "dtype": "i64" if array.dtype.kind == "i" else "f32", "file": os.path.join(folder, name)}
            request = {"op": "run", "inputs": arrays}
        for _ in range(options.repeats):
            replies.append(ask(child, **request))
            if "error" in replies[-1]:
                print(f"{engine:9} {network:13} FAILED: {replies[-1]['error']}", flush=True)
                return False
        peak = ask(child, op="rss")["peak_rss_bytes"]
    finally:
        child.stdin.close()
        child.wait()
    output, difference = replies[-1]["output"], float("nan")
    if output:
        if network == "image":
            from PIL import Image
            with Image.open(output["file"]) as image:
                values = numpy.asarray(image).astype("f4")
        else:
            values = numpy.fromfile(output["file"], "<f4").reshape(output["shape"])
        expected = reference.setdefault(network, values)
        difference = float(abs(values - expected).max() / (255 if network == "image" else abs(expected).max()))
        for reply in replies:
            os.remove(reply["output"]["file"])
    print(f"{engine:9} {network:13} {min(r['seconds'] for r in replies):8.3f} s, load {replies[0]['load_seconds']:6.2f} s, peak {peak / 2**20:6.0f} MiB, "
          f"difference {difference:.1e}  {json.dumps(replies[0]['notes'])}", flush=True)
    return network == "image" or not difference > (1e-3 if PRECISION == "f32" else 0.1)


def selftest():
    parser = argparse.ArgumentParser()
    parser.add_argument("--selftest", metavar="MODEL_DIR", required=True)
    engines = sorted((os.path.basename(p)[:-3] for p in glob.glob(os.path.join(HERE, "*.py")) if not p.endswith("common.py")), key=lambda e: (e != "eager", e))
    parser.add_argument("--engine", action="append", choices=engines, help="eager is the reference of the others: name it first")
    parser.add_argument("--network", action="append", choices=[*FOLDERS, "image"])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    reference = {}
    with tempfile.TemporaryDirectory() as folder:
        good = [check(engine, options.selftest, network, options, folder, reference)
                for network in options.network or [*networks(options.selftest), *([] if is_xl(options.selftest) else ["image"])] for engine in options.engine or engines]
    sys.exit(0 if all(good) else 1)


if __name__ == "__main__":
    selftest()
