"""Goldens of drawing in two passes: txt2img, decode, resize by Pillow's Lanczos filter, img2img with the same settings and a generator of the same seed.

    python make_golden_hires.py [OUT]

imports ../sdxl/make_golden_sdxl.py and reads its models (versions in index.json).
"""
import os, sys
import torch
from PIL import Image
from diffusers import StableDiffusionImg2ImgPipeline, StableDiffusionXLImg2ImgPipeline

HERE = os.path.dirname(os.path.abspath(__file__))
SDXL = os.path.join(HERE, '..', 'sdxl')
sys.path.insert(0, SDXL)
import make_golden_sdxl as G

CASES = [
    dict(id='sd', model='tiny-sd15', sampler='euler', prompt=G.PROMPTS[0], steps=6, guidance_scale=4.0, width=64, height=48, seed=71, scale=2.0, strength=0.5),
    dict(id='sd-ancestral', model='tiny-sd15', sampler='euler_a', prompt=G.PROMPTS[1], negative_prompt=G.PROMPTS[0], steps=5, guidance_scale=3.0, width=48, height=64, seed=74, scale=1.5, strength=0.3, hires_steps=10),
    dict(id='xl', model='tiny-sdxl', sampler='dpmpp_2m', prompt=G.PROMPTS[0], steps=5, guidance_scale=3.0, width=64, height=48, seed=73, scale=2.0, strength=0.6),
]


def latents(pipe, generator_seed, **kw):
    """The last latents and the picture of a run."""
    last = {}
    def keep(p, i, t, k): last['latents'] = k['latents'].clone(); return k
    image = pipe(generator=torch.Generator().manual_seed(generator_seed), callback_on_step_end=keep, output_type='pil', **kw).images[0]
    return last['latents'], image


def main(out):
    os.makedirs(out, exist_ok=True)
    runs = []
    for c in CASES:
        pipe = G.load_pipe(SDXL, c['model'])
        img2img = (StableDiffusionXLImg2ImgPipeline if 'xl' in c['model'] else StableDiffusionImg2ImgPipeline)(**{k: v for k, v in pipe.components.items()}, **({} if 'xl' in c['model'] else dict(requires_safety_checker=False)))
        img2img.set_progress_bar_config(disable=True)
        scheduler = lambda: G.make_scheduler(c['sampler'], G.BASE[c['model']])
        said = {k: c[k] for k in ('prompt', 'negative_prompt', 'guidance_scale') if k in c}
        pipe.scheduler = scheduler()
        first, image = latents(pipe, c['seed'], num_inference_steps=c['steps'], width=c['width'], height=c['height'], **said)
        large = image.resize((round(c['width'] * c['scale']), round(c['height'] * c['scale'])), Image.LANCZOS)
        img2img.scheduler = scheduler()
        last, final = latents(img2img, c['seed'], num_inference_steps=c.get('hires_steps', c['steps']), strength=c['strength'], image=large, **said)
        G.save({'first': first, 'last': last}, f'{out}/{c["id"]}.safetensors')
        large.save(f'{out}/{c["id"]}-enlarged.png')
        final.save(f'{out}/{c["id"]}.png')
        runs.append(c)
        print(c['id'], image.size, final.size, float(last.abs().max()))
    G.jdump(dict(runs=runs, versions=G.versions()), f'{out}/index.json')


if __name__ == '__main__':
    with torch.inference_mode():
        main(sys.argv[1] if len(sys.argv) > 1 else HERE)
