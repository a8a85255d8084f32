"""The peer of bench/: the model in diffusers and PyTorch, float32 on the CPU, driven by JSON lines.

    python peer.py MODEL_DIR THREADS

Each line of stdin is a request {"op": "encode" | "denoise" | "decode" | "image", ...}; each line of stdout an answer
{"seconds": {row: seconds}, ...}, or {"error": text}. The first line of stdout tells the versions, or why there is no
peer. Clocks run here and around the work alone: what crosses the pipe is not timed. Tensors cross it as base64 of
little-endian float32. Nothing is fetched from the network.
"""
import base64
import io
import json
import os
import statistics
import sys
import time

os.environ["HF_HUB_OFFLINE"] = "1"
answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)  # what libraries print must not come between the answers


def answer(**fields):
    answers.write(json.dumps(fields) + "\n")
    answers.flush()


try:
    import diffusers
    import numpy
    import torch
    import transformers
    from diffusers import StableDiffusionPipeline
    from PIL import Image
except ImportError as problem:
    answer(error=f"{problem}; `make bench-env` installs what the peer needs")
    sys.exit(0)


def pack(tensor):
    return base64.b64encode(tensor.detach().contiguous().numpy().astype("<f4").tobytes()).decode()


def unpack(text, shape):
    return torch.from_numpy(numpy.frombuffer(base64.b64decode(text), "<f4").copy()).reshape(shape)


def png(image):
    file = io.BytesIO()
    image.save(file, format="PNG")
    return file.getvalue()


class Peer:
    """One loaded pipeline and the operations that are timed."""

    def __init__(self, model):
        pipe = StableDiffusionPipeline.from_pretrained(model, torch_dtype=torch.float32, safety_checker=None, requires_safety_checker=False, local_files_only=True)
        self.pipe = pipe
        pipe.set_progress_bar_config(disable=True)
        for module in (pipe.unet, pipe.vae, pipe.text_encoder):
            module.eval()
        self.layouts = {"unet": self.choose_layout(pipe.unet, self.try_unet), "vae": self.choose_layout(pipe.vae, self.try_vae)}

    def try_unet(self):
        u = self.pipe.unet.config
        self.pipe.unet(torch.zeros(2, u.in_channels, 16, 16), 500, torch.zeros(2, 77, u.cross_attention_dim))

    def try_vae(self):
        self.pipe.vae.decode(torch.zeros(1, self.pipe.vae.config.latent_channels, 16, 16))

    def choose_layout(self, module, run, rounds=5):
        """The faster of torch's two layouts, by the least of some alternating runs."""
        layouts = {"channels_first": torch.contiguous_format, "channels_last": torch.channels_last}
        best = dict.fromkeys(layouts, float("inf"))
        for i in range(rounds + 2):
            for name, layout in layouts.items():
                module.to(memory_format=layout)
                run()
                start = time.perf_counter()
                run()
                if i >= 2:
                    best[name] = min(best[name], time.perf_counter() - start)
        chosen = min(best, key=best.get)
        module.to(memory_format=layouts[chosen])
        return f"{chosen} ({1e3 * best['channels_first']:.1f} ms first, {1e3 * best['channels_last']:.1f} ms last)"

    def encode(self, q):
        start = time.perf_counter()
        ids = self.pipe.tokenizer(q["prompts"], padding="max_length", truncation=True, max_length=self.pipe.tokenizer.model_max_length, return_tensors="pt").input_ids
        states = self.pipe.text_encoder(ids).last_hidden_state
        return {"encode": time.perf_counter() - start}, {"values": pack(states)}

    def denoise(self, q):
        """The loop of the pipeline without its bookkeeping: the least that a caller of diffusers runs."""
        states, unet, scheduler = unpack(q["values"], q["shape"]), self.pipe.unet, self.pipe.scheduler
        start = time.perf_counter()
        scheduler.set_timesteps(q["steps"])
        x = torch.randn(1, unet.config.in_channels, q["height"], q["width"], generator=torch.Generator().manual_seed(q["seed"])) * scheduler.init_noise_sigma
        marks = [time.perf_counter()]
        for t in scheduler.timesteps:
            both = scheduler.scale_model_input(torch.cat([x, x]), t)
            negative, positive = unet(both, t, encoder_hidden_states=states, return_dict=False)[0].chunk(2)
            x = scheduler.step(negative + q["guidance_scale"] * (positive - negative), t, x, return_dict=False)[0]
            marks.append(time.perf_counter())
        return {"step": statistics.median(b - a for a, b in zip(marks, marks[1:])), "denoise": marks[-1] - start}, {"values": pack(x)}

    def decode(self, q):
        latents = unpack(q["values"], q["shape"])
        start = time.perf_counter()
        image = self.pipe.vae.decode(latents / self.pipe.vae.config.scaling_factor, return_dict=False)[0]
        pixels = (image / 2 + 0.5).clamp(0, 1).mul(255).round().to(torch.uint8)[0].permute(1, 2, 0).contiguous().numpy()
        middle = time.perf_counter()
        file = png(Image.fromarray(pixels))
        end = time.perf_counter()
        return {"decode": middle - start, "png": end - middle, "decode_png": end - start}, {"file": base64.b64encode(file).decode()}

    def image(self, q):
        """What a user of diffusers calls, and the file."""
        start = time.perf_counter()
        image = self.pipe(q["prompts"][1], negative_prompt=q["prompts"][0], num_inference_steps=q["steps"], guidance_scale=q["guidance_scale"],
                          height=q["height"] * self.pipe.vae_scale_factor, width=q["width"] * self.pipe.vae_scale_factor,
                          generator=torch.Generator().manual_seed(q["seed"])).images[0]
        file = png(image)
        return {"image": time.perf_counter() - start}, {"file": base64.b64encode(file).decode()}


def main():
    model, threads = sys.argv[1], int(sys.argv[2])
    torch.set_num_threads(threads)
    torch.set_num_interop_threads(1)
    with torch.inference_mode():
        try:
            peer = Peer(model)
        except Exception as problem:  # whatever a library raises ends the peer, and bench tells it
            answer(error=f"{type(problem).__name__}: {problem}")
            return
        answer(versions={"torch": torch.__version__, "diffusers": diffusers.__version__, "transformers": transformers.__version__,
                         "python": sys.version.split()[0]}, threads=torch.get_num_threads(), layouts=peer.layouts)
        operations = {"encode": peer.encode, "denoise": peer.denoise, "decode": peer.decode, "image": peer.image}
        for line in sys.stdin:
            try:
                q = json.loads(line)
                seconds, results = operations[q["op"]](q)
            except Exception as problem:
                answer(error=f"{type(problem).__name__}: {problem}")
            else:
                answer(seconds=seconds, **results)


if __name__ == "__main__":
    main()
