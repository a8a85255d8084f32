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
    """The network with its weights in that type, taking common.inputs in order and returning one tensor."""
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
    if network == "vae_decoder":
        return Network(decoder(folder, precision), lambda of, latents: of.decode(latents, return_dict=False)[0]).eval()
    of = network_class(network).from_pretrained(folder, dtype=dtype(precision), local_files_only=True)
    if network == "text_encoder_2":
        def encode(of, ids):
            out = of(ids, output_hidden_states=True)
            return torch.cat([out.hidden_states[-2].flatten(1), out.text_embeds], 1)
        call = encode
    elif network == "text_encoder":
        # as the pipeline calls it: the states behind the last layer but one are taken, and the last is computed all the same
        call = (lambda of, ids: of(ids, output_hidden_states=True).hidden_states[-2]) if common.is_xl(model) else (lambda of, ids: of(ids).last_hidden_state)
    elif common.is_xl(model):
        call = lambda of, sample, timestep, states, pooled, ids: of(sample, timestep, states, added_cond_kwargs={"text_embeds": pooled, "time_ids": ids}, return_dict=False)[0]
    else:
        call = lambda of, sample, timestep, states: of(sample, timestep, states, return_dict=False)[0]
    return Network(of, call).eval()


def network_class(network):
    """Imports it, which takes seconds and is not part of any loading that is timed."""
    if network == "upscaler":
        import rrdb
        return rrdb.RRDBNet
    if network.startswith("text_encoder"):
        from transformers import CLIPTextModel, CLIPTextModelWithProjection
        return CLIPTextModel if network == "text_encoder" else CLIPTextModelWithProjection
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
    with safe_open(os.path.join(folder, common.OTHER_WEIGHTS), "pt") as file:
        vae.load_state_dict({name: file.get_tensor(name).to(dtype(precision)) for name, _ in vae.named_parameters()}, assign=True)
    return vae


def zeros(network, shapes):
    import torch
    return [torch.zeros(shape, dtype=torch.int64 if network.startswith("text_encoder") else torch.float32) for shape in shapes]


def cast(model, network, tensors):
    """The inputs in the type to compute in, but for time steps, which no pipeline rounds."""
    return [tensor.to(dtype(common.PRECISION)) if tensor.is_floating_point() and name != "timestep" else tensor
            for name, tensor in zip(common.inputs(model, network), tensors)]


def loaded(model, network):
    return module(model, network, common.PRECISION)


def to_layout(module, name):
    import torch
    return module.to(memory_format={"channels_first": torch.contiguous_format, "channels_last": torch.channels_last}[name])


LAYOUTS = ("channels_first", "channels_last")
MOST_AT_ONCE = 2**31  # bytes of weights as stored, of which two layouts in float32 are loaded at the same time
TRIAL_SIDE = 64  # of the latents or the image


def faster_layout(of, run, at_once=True):
    """{"channels_first": seconds, "channels_last": seconds, "chosen": name} of run(module), by the least of alternating runs.

    `of` makes the module of a layout. The first run of each does not count, and runs of more than a second are counted once.
    Not at once, each is made and run twice in turn.
    """
    best = {}

    def timed(module):
        start = time.perf_counter()
        run(module)
        return time.perf_counter() - start

    if not at_once:
        for name in LAYOUTS:
            module = of(name)
            best[name] = [timed(module) for _ in range(2)][1]
            del module
        return best | {"chosen": min(best, key=best.get)}
    modules = {name: of(name) for name in LAYOUTS}
    for round in range(11):
        for name, module in modules.items():
            seconds = timed(module)
            if round > 0:
                best[name] = min(best.get(name, seconds), seconds)
        if round > 0 and min(best.values()) > 1:
            break
    return best | {"chosen": min(best, key=best.get)}


def trial_shapes(shapes):
    """Those at which layouts are tried: images of no more than TRIAL_SIDE, since those of large ones take minutes."""
    return [shape[:2] + [min(side, TRIAL_SIDE) for side in shape[2:]] if len(shape) == 4 else shape for shape in shapes]


def layout_note(result):
    return f"{result['chosen']} ({1e3 * result['channels_first']:.1f} ms first, {1e3 * result['channels_last']:.1f} ms last)"


def prepare(model, network, threads, shapes, _):
    import torch
    set_threads(threads)
    with torch.inference_mode():
        inputs = cast(model, network, zeros(network, shapes))
        at_once = os.path.getsize(common.weights(model, common.FOLDERS[network])) < MOST_AT_ONCE
        return faster_layout(lambda name: to_layout(loaded(model, network), name), lambda of: of(*inputs), at_once)


def choose_layout(model, network, threads, shapes):
    if network.startswith("text_encoder"):  # it has no images
        return {"chosen": "channels_first"}, {}
    result = common.prepared("eager", versions() | {"precision": common.PRECISION}, model, network, threads, trial_shapes(shapes))[1]
    return result, {"memory_format": layout_note(result)}


class Network:
    """One network, loaded. See common.Child."""

    def __init__(self, model, network, threads, shapes):
        layout, self.notes = choose_layout(model, network, threads, shapes)
        network_class(network)
        self.model, self.network = model, network
        start = time.perf_counter()
        self.module = to_layout(loaded(model, network), layout["chosen"])
        self.load_seconds = time.perf_counter() - start

    def tensors(self, arrays):
        import torch
        return cast(self.model, self.network, [torch.from_numpy(array) for array in arrays])

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
