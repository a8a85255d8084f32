"""PyTorch as diffusers runs it, in the faster of torch's two memory layouts. See common.py for the protocol."""
import io
import os
import time

import common


def versions():
    import diffusers
    import torch
    import transformers
    return {"torch": torch.__version__, "diffusers": diffusers.__version__, "transformers": transformers.__version__}


def set_threads(threads):
    import torch
    torch.set_num_threads(threads)
    torch.set_num_interop_threads(1)


def dtype(precision):
    import torch
    return {"f32": torch.float32, "bf16": torch.bfloat16}[precision]


def module(model, network, precision="f32"):
    """The network with its weights in that type, taking common.INPUTS in order and returning one tensor."""
    import torch

    class Network(torch.nn.Module):
        def __init__(self, of, call):
            super().__init__()
            self.of, self.call = of, call

        def forward(self, *inputs):
            return self.call(self.of, *inputs)

    if network == "upscaler":
        import rrdb
        return rrdb.load(model, dtype(precision)).eval()
    folder = os.path.join(model, common.FOLDERS[network])
    if network == "text_encoder":
        of = network_class(network).from_pretrained(folder, dtype=dtype(precision), local_files_only=True)
        return Network(of, lambda of, ids: of(ids).last_hidden_state).eval()
    if network == "unet":
        of = network_class(network).from_pretrained(folder, dtype=dtype(precision), local_files_only=True)
        return Network(of, lambda of, sample, timestep, states: of(sample, timestep, states, return_dict=False)[0]).eval()
    return Network(decoder(folder, precision), lambda of, latents: of.decode(latents, return_dict=False)[0]).eval()


def network_class(network):
    """Imports it, which takes seconds and is not part of any loading that is timed."""
    if network == "upscaler":
        import rrdb
        return rrdb.RRDBNet
    if network == "text_encoder":
        from transformers import CLIPTextModel
        return CLIPTextModel
    from diffusers import AutoencoderKL, UNet2DConditionModel
    return UNet2DConditionModel if network == "unet" else AutoencoderKL


def decoder(folder, precision):
    """An AutoencoderKL without its encoder, whose weights are not even read."""
    import torch
    from safetensors import safe_open

    kind = network_class("vae_decoder")
    with torch.device("meta"):
        vae = kind.from_config(kind.load_config(folder))
    del vae.encoder, vae.quant_conv
    with safe_open(os.path.join(folder, common.WEIGHTS["vae"]), "pt") as file:
        vae.load_state_dict({name: file.get_tensor(name).to(dtype(precision)) for name, _ in vae.named_parameters()}, assign=True)
    return vae


def zeros(network, shapes):
    import torch
    return [torch.zeros(shape, dtype=torch.int64 if network == "text_encoder" else torch.float32) for shape in shapes]


def cast(network, tensors):
    """The inputs in the type to compute in, but for time steps, which no pipeline rounds."""
    return [tensor.to(dtype(common.PRECISION)) if tensor.is_floating_point() and name != "timestep" else tensor
            for name, tensor in zip(common.INPUTS[network], tensors)]


def loaded(model, network):
    return module(model, network, common.PRECISION)


def to_layout(module, name):
    import torch
    return module.to(memory_format={"channels_first": torch.contiguous_format, "channels_last": torch.channels_last}[name])


def faster_layout(of, run):
    """{"channels_first": seconds, "channels_last": seconds, "chosen": name} of run(module), by the least of alternating runs.

    `of` makes the module of a layout. The first run of each does not count, and runs of more than a second are counted once.
    """
    modules = {name: of(name) for name in ("channels_first", "channels_last")}
    best = {}
    for round in range(11):
        for name, module in modules.items():
            start = time.perf_counter()
            run(module)
            seconds = time.perf_counter() - start
            if round > 0:
                best[name] = min(best.get(name, seconds), seconds)
        if round > 0 and min(best.values()) > 1:
            break
    return best | {"chosen": min(best, key=best.get)}


def layout_note(result):
    return f"{result['chosen']} ({1e3 * result['channels_first']:.1f} ms first, {1e3 * result['channels_last']:.1f} ms last)"


def prepare(model, network, threads, shapes, _):
    import torch
    set_threads(threads)
    with torch.inference_mode():
        inputs = cast(network, zeros(network, shapes))
        return faster_layout(lambda name: to_layout(loaded(model, network), name), lambda of: of(*inputs))


def choose_layout(model, network, threads, shapes):
    if network == "text_encoder":  # it has no images
        return {"chosen": "channels_first"}, {}
    result = common.prepared("eager", versions() | {"precision": common.PRECISION}, model, network, threads, shapes)[1]
    return result, {"memory_format": layout_note(result)}


class Network:
    """One network, loaded. See common.Child."""

    def __init__(self, model, network, threads, shapes):
        layout, self.notes = choose_layout(model, network, threads, shapes)
        network_class(network)
        self.network = network
        start = time.perf_counter()
        self.module = to_layout(loaded(model, network), layout["chosen"])
        self.load_seconds = time.perf_counter() - start

    def tensors(self, arrays):
        import torch
        return cast(self.network, [torch.from_numpy(array) for array in arrays])

    def run(self, tensors):
        import torch
        with torch.inference_mode():
            return self.module(*tensors)

    def array(self, output):
        return output.float().numpy()


class Image:
    """The pipeline that a user of diffusers calls, with DDIM, and its PNG file. See common.Child."""

    def __init__(self, model, threads, size):
        import torch
        from diffusers import DDIMScheduler, StableDiffusionPipeline

        unet, vae = common.config(model, "unet"), common.config(model, "vae")
        sides = [side // 2 ** (len(vae["block_out_channels"]) - 1) for side in size]
        shapes = {"unet": [[2, unet["in_channels"], *sides], [1], [2, 77, unet["cross_attention_dim"]]], "vae_decoder": [[1, vae["latent_channels"], *sides]]}
        chosen = {network: choose_layout(model, network, threads, shapes[network]) for network in shapes}
        self.notes = {"memory_format": ", ".join(f"{network} {notes['memory_format']}" for network, (_, notes) in chosen.items())}
        network_class("text_encoder"), network_class("unet")
        start = time.perf_counter()
        self.pipe = StableDiffusionPipeline.from_pretrained(model, dtype=dtype(common.PRECISION), safety_checker=None, requires_safety_checker=False, local_files_only=True)
        self.pipe.scheduler = DDIMScheduler.from_config(self.pipe.scheduler.config)
        self.pipe.set_progress_bar_config(disable=True)
        to_layout(self.pipe.unet, chosen["unet"][0]["chosen"])
        to_layout(self.pipe.vae, chosen["vae_decoder"][0]["chosen"])
        self.load_seconds = time.perf_counter() - start

    def run(self, q):
        import torch
        start = time.perf_counter()
        unet, factor = self.pipe.unet, self.pipe.vae_scale_factor
        noise = torch.randn(1, unet.config.in_channels, q["height"] // factor, q["width"] // factor, generator=torch.Generator().manual_seed(q["seed"]))
        with torch.inference_mode():  # the noise of float32, since torch draws another one in another type
            image = self.pipe(q["prompt"], negative_prompt=q["negative_prompt"], num_inference_steps=q["steps"], guidance_scale=q["guidance_scale"],
                              height=q["height"], width=q["width"], latents=noise.to(unet.dtype)).images[0]
        file = io.BytesIO()
        image.save(file, format="PNG")
        return time.perf_counter() - start, file.getvalue()


def precisions():
    return ["f32", "bf16"] if common.cpu_has_bfloat16() else ["f32"]


def engine(threads):
    found = versions()
    set_threads(threads)
    return {"engine": "torch", "versions": found, "network": Network, "image": Image}


if __name__ == "__main__":
    common.serve(engine, precisions)
