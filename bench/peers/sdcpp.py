"""stable-diffusion.cpp through its Python bindings, built from source. See common.py for the protocol.

It offers images, not networks: a request for one network makes an image of that size from a fixed prompt, and takes the
network's part from the times at which the library reports its phases. So the values of the inputs are not used, there
is no output, and all three networks are resident, which `rss` holds too: it is the peak within the network's phase.
"""
import ctypes
import io
import json
import math
import os
import sys
import time

import common

# Lines of the library's log between which a network works.
PHASES = {"text_encoder": ("clip compute buffer size", "computing condition graph completed"), "vae_decoder": ("decoding 1 latents", "latent 1 decoded")}


def supported(model):
    text, unet, vae = (common.config(model, folder) for folder in ("text_encoder", "unet", "vae"))
    if text["hidden_size"] not in (768, 1024) or unet["in_channels"] != 4 or unet["block_out_channels"] != [320, 640, 1280, 1280] or vae["block_out_channels"] != [128, 256, 512, 512]:
        raise common.NoPeer("stable-diffusion.cpp holds the sizes of Stable Diffusion 1 and 2 in its code; this model has others")


class Network:
    """The whole model, timed in one phase. See common.Child."""

    def __init__(self, model, network, threads, shapes):
        import stable_diffusion_cpp as library

        self.network, self.model = network, model
        self.batch, self.sides = shapes[0][0], [8, 8] if network == "text_encoder" else shapes[0][2:]
        if self.batch not in ((1,) if network == "vae_decoder" else (1, 2)):
            raise common.NoPeer(f"batch {self.batch} of {network}: an image without guidance has 1, with it 2")
        start = time.perf_counter()
        self.library = library.StableDiffusion(model_path=model, n_threads=threads, wtype=common.PRECISION, vae_decode_only=True, rng_type="cpu", sampler_rng_type="cpu")
        self.load_seconds = time.perf_counter() - start
        if not self.library.model:
            raise common.NoPeer("stable-diffusion.cpp does not load this model; stderr has its reason")
        self.log = library.sd_log_callback(self.report)
        library.sd_set_log_callback(self.log, ctypes.c_void_p(0))
        self.began, self.spent, self.peak = None, 0.0, 0
        self.notes = {"measured": "the network's phase within an image", "batch": "a batch of 2 is two runs of 1", "memory": "all three networks are resident",
                      "load": "of all three networks"}

    def begin(self):
        common.reset_rss()
        self.began = time.perf_counter()

    def end(self):
        self.spent += time.perf_counter() - self.began
        self.peak = max(self.peak, common.peak_rss())

    def report(self, _, text, __):
        first, last = PHASES.get(self.network, (None, None))
        line = text.decode(errors="replace")
        if first and first in line:
            self.begin()
        elif last and last in line:
            self.end()

    def step(self, number, *_):
        if self.network == "unet":
            self.begin() if number == 0 else self.end()

    def generate(self, **options):
        self.spent = 0.0
        return self.library.generate_image(height=8 * self.sides[0], width=8 * self.sides[1], sample_method="euler", progress_callback=self.step, **options)[0]

    def run_phase(self):
        self.generate(prompt="a photo of a cat", cfg_scale=7.5 if self.batch == 2 else 1.0, sample_steps=1, seed=1)
        return self.spent


class Image(Network):
    """An image by DDIM. See common.Child.

    DDIM without noise of its own is Euler's method for latents divided by the root of alphas_cumprod (Song et al.,
    Denoising Diffusion Implicit Models, 2020, section 4.3), so the library gets its sigmas and that method. Its first latents are
    the noise times sigma, those of diffusers divided by that root: with 20 steps that is 0.4 % less, with few
    steps much less, so images of few steps differ.
    """

    def __init__(self, model, threads, size):
        super().__init__(model, "image", threads, [[1, 4, size[0] // 8, size[1] // 8]])
        self.notes = {"sampler": "Euler at DDIM's sigmas"}

    def sigmas(self, steps):
        with open(os.path.join(self.model, "scheduler", "scheduler_config.json")) as file:
            s = json.load(file)
        if s["beta_schedule"] != "scaled_linear" or s.get("prediction_type", "epsilon") != "epsilon":
            raise common.NoPeer(f"scheduler with {s['beta_schedule']} betas and {s.get('prediction_type')} prediction: only scaled_linear and epsilon")
        product, alphas, train = 1.0, [], s["num_train_timesteps"]
        low, high = math.sqrt(s["beta_start"]), math.sqrt(s["beta_end"])
        for t in range(train):
            product *= 1 - (low + (high - low) * t / (train - 1)) ** 2
            alphas.append(product)
        last = 1.0 if s.get("set_alpha_to_one", True) else alphas[0]
        chosen = [alphas[k * (train // steps) + s.get("steps_offset", 0)] for k in reversed(range(steps))]
        return [math.sqrt((1 - a) / a) for a in [*chosen, last]]

    def run(self, q):
        start = time.perf_counter()
        image = self.generate(prompt=q["prompt"], negative_prompt=q["negative_prompt"], cfg_scale=q["guidance_scale"], sample_steps=q["steps"], seed=q["seed"],
                              sigmas=",".join(f"{sigma:.7f}" for sigma in self.sigmas(q["steps"])))
        file = io.BytesIO()
        image.convert("RGB").save(file, format="PNG")  # it comes with an alpha channel
        return time.perf_counter() - start, file.getvalue()


class Child(common.Child):
    def run(self, q):
        shapes = [q["inputs"][name]["shape"] for name in common.inputs(self.model, self.name)]
        more = self.load(shapes, lambda: self.make_network(self.model, self.name, self.threads, shapes))
        return {"seconds": self.loaded.run_phase(), "output": None} | more

    def rss(self, q):
        peak = self.loaded.peak if self.loaded and self.name != "image" else 0
        return {"peak_rss_bytes": peak} if peak else super().rss(q)


def engine(_):
    import stable_diffusion_cpp as library
    supported(sys.argv[1])
    text = lambda value: value.decode() if isinstance(value, bytes) else str(value)
    return {"engine": "stable-diffusion.cpp", "versions": {"stable-diffusion-cpp-python": library.__version__, "stable-diffusion.cpp": text(library.sd_version())},
            "network": Network, "image": Image, "child": Child,
            "notes": {"weights": f"{common.PRECISION}; products round their other side to it too"}}


if __name__ == "__main__":
    common.serve(engine, lambda: ["f16", "f32"])  # as stored, unasked
