"""What diffusers draws from a picture, and under a mask, with every sampler, as ../sdxl's runs do with six.

    python make_pictures.py OUT [NAME...]   index.json, and latents.safetensors with the last latents of each case

The model is ../sdxl/tiny-sd15, pictures and masks are ../sdxl/inputs. LMSDiscreteScheduler needs scipy.
"""
import json, os, sys, warnings
HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.dirname(HERE))
warnings.filterwarnings('ignore')
import torch
from PIL import Image
from diffusers import StableDiffusionImg2ImgPipeline, StableDiffusionInpaintPipeline, StableDiffusionPipeline
from safetensors.torch import save_file
from make_golden import SAMPLERS, VERSIONS, make_scheduler

SDXL = f'{os.path.dirname(HERE)}/sdxl'
MODEL = f'{SDXL}/tiny-sd15'


def cases():
    base = dict(model='tiny-sd15', prompt='a small red apple', negative_prompt='fox', guidance_scale=2.0, width=64, height=48, image='photo-64x48.png')
    seed = 200
    for name in SAMPLERS:
        for kind, strength, steps in (('img2img', 0.62, 8), ('inpaint', 0.5, 6)):
            seed += 1
            yield dict(base, id=f'{kind}-{name}', kind=kind, sampler=name, strength=strength, steps=steps, seed=seed, **({'mask': 'mask-64x48.png'} if kind == 'inpaint' else {}))
    for kind in ('img2img', 'inpaint'):  # the second of pndm's timesteps stands twice in its schedule
        yield dict(base, id=f'{kind}-pndm-second', kind=kind, sampler='pndm', strength=0.9, steps=5, seed=300, **({'mask': 'mask-soft-64x48.png'} if kind == 'inpaint' else {}))
    yield dict(base, id='inpaint-full', kind='inpaint', sampler='lms', strength=1.0, steps=4, seed=301, mask='mask-soft-64x48.png')
    yield dict(base, id='img2img-resized', kind='img2img', sampler='ddim', strength=0.4, steps=5, seed=302, image='photo-90x70.png', width=72, height=40)
    yield dict(base, id='inpaint-resized', kind='inpaint', sampler='ddim', strength=0.6, steps=5, seed=303, image='photo-90x70.png', mask='mask-soft-64x48.png', width=72, height=40)
    yield dict(base, id='img2img-unguided', kind='img2img', sampler='euler', strength=0.5, steps=4, seed=304, guidance_scale=1.0)


def draw(pipes, c):
    pipe = pipes[c['kind']]
    pipe.scheduler = make_scheduler(c['sampler'], json.load(open(f'{MODEL}/scheduler/scheduler_config.json')))
    def open_(name): return Image.open(f'{SDXL}/inputs/{name}')
    kw = dict(image=open_(c['image']).convert('RGB'))
    if c['kind'] == 'inpaint':
        kw.update(mask_image=open_(c['mask']), height=c['height'], width=c['width'])
    elif kw['image'].size != (c['width'], c['height']):  # the pipeline takes no size
        kw['image'] = kw['image'].resize((c['width'], c['height']), Image.LANCZOS)
    last = {}
    def step(_, i, t, k):
        last['latents'] = k['latents'].clone()
        return k
    out = pipe(c['prompt'], negative_prompt=c['negative_prompt'], guidance_scale=c['guidance_scale'], strength=c['strength'], num_inference_steps=c['steps'],
               generator=torch.Generator().manual_seed(c['seed']), output_type='latent', callback_on_step_end=step, **kw).images
    assert torch.isfinite(out).all() and torch.equal(out, last['latents'])
    return out.contiguous()


def main(out, names):
    torch.set_grad_enabled(False)
    p = StableDiffusionPipeline.from_pretrained(MODEL, torch_dtype=torch.float32, safety_checker=None, feature_extractor=None, requires_safety_checker=False)
    parts = {k: v for k, v in p.components.items()}
    pipes = {'img2img': StableDiffusionImg2ImgPipeline(**parts, requires_safety_checker=False), 'inpaint': StableDiffusionInpaintPipeline(**parts, requires_safety_checker=False)}
    for q in pipes.values(): q.set_progress_bar_config(disable=True)
    done, latents = [], {}
    for c in cases():
        if names and c['id'] not in names: continue
        latents[c['id']] = draw(pipes, c)
        done.append(c)
        print('%-26s largest %.2f' % (c['id'], latents[c['id']].abs().max()), flush=True)
    save_file(latents, f'{out}/latents.safetensors')
    json.dump({'versions': VERSIONS, 'runs': done}, open(f'{out}/index.json', 'w'), indent=1, ensure_ascii=False)


if __name__ == '__main__': main(sys.argv[1], sys.argv[2:])
