"""Reference outputs for ControlNets and IP-Adapters where ../sdxl and ../formats have none: from pictures and masks, samplers that evaluate twice a step, other sizes, pooled residuals, IP-Adapter on SDXL.

    python make_control.py OUT      where ../sdxl has been made

Needs what ../sdxl/make_golden_sdxl.py needs (versions in index.json); the same conventions hold, see ../sdxl/README.md. Models, nets, encoder and pictures are those of ../sdxl.
`config` of a net of a run are keys of its config.json that are changed. Of the latents only the last ones are kept.
"""
import json, os, sys
HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, '..', 'sdxl'))
import diffusers
import make_golden_sdxl as G
from diffusers import ControlNetModel, UNet2DConditionModel
from make_golden_sdxl import C, Image, load_file, load_pipe, run_case, save, torch
from transformers import CLIPImageProcessorPil, CLIPVisionModelWithProjection

S = os.path.join(HERE, '..', 'sdxl')
PHOTO, LARGE, MASK, EDGES, SCRIBBLE = 'photo-64x48.png', 'photo-90x70.png', 'mask-64x48.png', 'edges-64x48.png', 'scribble-64x48.png'
NONE = dict(safety_checker=None, feature_extractor=None, requires_safety_checker=False)


def image(name): return Image.open(f'{S}/inputs/{name}')


def net(name, **config):
    n = ControlNetModel.from_pretrained(f'{S}/{name}', torch_dtype=torch.float32)
    if config:
        m = ControlNetModel.from_config({**n.config, **config}); m.load_state_dict(n.state_dict()); n = m
    return n.eval()


def controlled(model, kind, xl):
    p = load_pipe(S, 'tiny-sdxl' if xl else 'tiny-sd15'); name = ('StableDiffusionXL' if xl else 'StableDiffusion') + 'ControlNet' + {'txt2img': '', 'img2img': 'Img2Img', 'inpaint': 'Inpaint'}[kind] + 'Pipeline'
    kw = dict(force_zeros_for_empty_prompt=True, add_watermarker=False) if xl else NONE
    parts = {k: v for k, v in p.components.items() if k not in kw}
    if model.endswith('-inpaint'): parts['unet'] = UNet2DConditionModel.from_pretrained(f'{S}/{model}/unet', torch_dtype=torch.float32).eval()
    G.BASE.setdefault(model, G.BASE['tiny-sdxl' if xl else 'tiny-sd15'])
    return lambda nets: getattr(diffusers, name)(**parts, controlnet=nets if len(nets) > 1 else nets[0], **kw)


def controls(out, done):
    a, b, x = ((lambda i, n=n, **k: dict(model=f'control-{n}', image=i, **k)) for n in ('sd-a', 'sd-b', 'xl-a'))
    sd, xl = 'tiny-sd15', 'tiny-sdxl'; one = dict(controlnet_conditioning_scale=0.8)
    part = dict(control_guidance_start=0.2, control_guidance_end=0.7, **one)
    for c in [C('i2i-sd', sd, 'img2img', sampler='ddim', steps=10, strength=0.6, image=PHOTO, controls=[a(EDGES)], seed=300, **part), C('i2i-xl', xl, 'img2img', steps=6, strength=0.7, image=PHOTO, controls=[x(EDGES)], seed=301, **one),
              C('inpaint-sd', sd, 'inpaint', steps=5, strength=0.8, image=PHOTO, mask=MASK, controls=[a(EDGES)], negative_prompt='', seed=302, **one),
              C('inpaint-multi', sd, 'inpaint', sampler='dpmpp_2m_karras', steps=6, strength=1.0, image=PHOTO, mask=MASK, controls=[a(EDGES), b(SCRIBBLE)], seed=303, controlnet_conditioning_scale=[0.5, 0.9], control_guidance_start=[0.0, 0.3], control_guidance_end=[0.6, 1.0]),
              C('inpaint9-sd', 'tiny-sd15-inpaint', 'inpaint', steps=5, strength=1.0, image=PHOTO, mask=MASK, controls=[a(EDGES)], seed=304, **one),
              C('resized-sd', sd, 'txt2img', sampler='ddim', steps=3, controls=[a(LARGE)], seed=305, **one), C('heun-sd', sd, 'txt2img', sampler='heun', steps=5, controls=[a(EDGES)], seed=306, **part),
              C('pndm-sd', sd, 'txt2img', sampler='pndm', steps=6, controls=[a(EDGES)], seed=307, **part), C('end-xl', xl, 'txt2img', steps=8, denoising_end=0.6, controls=[x(EDGES)], seed=308, **part),
              C('pooled-sd', sd, 'txt2img', steps=4, controls=[a(PHOTO, config=dict(global_pool_conditions=True))], seed=309, **one), C('pooled-alone-sd', sd, 'txt2img', steps=4, guidance_scale=1.0, controls=[a(PHOTO, config=dict(global_pool_conditions=True))], seed=310, **one),
              C('bgr-sd', sd, 'txt2img', steps=3, controls=[a(PHOTO, config=dict(controlnet_conditioning_channel_order='bgr'))], seed=311, **one)]:
        nets = [net(k['model'], **k.get('config', {})) for k in c['controls']]; pics = [image(k['image']) for k in c['controls']]; pics = pics if len(pics) > 1 else pics[0]
        pipe = controlled(c['model'], c['kind'], c['model'] == xl)(nets)
        extra = dict(image=pics) if c['kind'] == 'txt2img' else dict(image=image(c['image']), control_image=pics)
        if 'mask' in c: extra['mask_image'] = image(c['mask'])
        done.append(run_case(pipe, out, c, extra))


def adapter(out, unet):
    """An IP-Adapter for tiny-sdxl, of random weights."""
    g = torch.Generator().manual_seed(320); rnd = lambda *s, k=1.2: (torch.randn(s, generator=g) * k / s[-1] ** 0.5).half().float()
    n, cd = 4, unet.config.cross_attention_dim
    proj = {'proj.weight': rnd(n * cd, 24), 'proj.bias': rnd(n * cd, k=5), 'norm.weight': 1 + rnd(cd, k=2).half().float(), 'norm.bias': rnd(cd, k=2)}; proj = {k: v.half().float() for k, v in proj.items()}
    ip = {f'{i}.to_{q}_ip.weight': rnd(unet.get_submodule(k[:-len('.processor')]).to_k.weight.shape[0], cd) for i, k in enumerate(unet.attn_processors) if 'attn2' in k for q in 'kv'}
    save({**{'image_proj.' + k: t for k, t in proj.items()}, **{'ip_adapter.' + k: t for k, t in ip.items()}}, f'{out}/ip-adapter_tiny_xl.safetensors', torch.float16)
    return proj, ip


def adapters(out, done):
    v = CLIPVisionModelWithProjection.from_pretrained(f'{S}/ip-adapter/image_encoder').float().eval(); fe = CLIPImageProcessorPil(size={'shortest_edge': 32}, crop_size={'height': 32, 'width': 32})
    flat = load_file(f'{S}/ip-adapter/ip-adapter_tiny.safetensors'); own = [{k[len(a):]: t.float() for k, t in flat.items() if k.startswith(a)} for a in ('image_proj.', 'ip_adapter.')]
    told = dict(file='../sdxl/ip-adapter/ip-adapter_tiny.safetensors', encoder='../sdxl/ip-adapter/image_encoder', image=LARGE); xl = dict(told, file='ip-adapter_tiny_xl.safetensors')
    for c in [C('ip-xl', 'tiny-sdxl', 'txt2img', steps=4, negative_prompt=G.PROMPTS[1], ip_adapter=dict(xl, scale=0.8), seed=320), C('ip-xl-alone', 'tiny-sdxl', 'txt2img', sampler='ddim', steps=3, guidance_scale=1.0, ip_adapter=dict(xl, scale=0.6), seed=321),
              C('ip-xl-i2i', 'tiny-sdxl', 'img2img', steps=6, strength=0.6, image=PHOTO, ip_adapter=dict(xl, scale=0.8), seed=322), C('ip-xl-control', 'tiny-sdxl', 'txt2img', steps=4, ip_adapter=dict(xl, scale=0.8), controls=[dict(model='control-xl-a', image=EDGES)], controlnet_conditioning_scale=0.7, seed=323),
              C('ip-sd-control', 'tiny-sd15', 'txt2img', sampler='dpmpp_2m', steps=4, ip_adapter=dict(told, scale=0.5), controls=[dict(model='control-sd-a', image=EDGES)], controlnet_conditioning_scale=0.7, seed=324),
              C('ip-sd-inpaint', 'tiny-sd15', 'inpaint', sampler='ddim', steps=6, strength=0.7, image=PHOTO, mask=MASK, ip_adapter=dict(told, scale=0.9), seed=325)]:
        big = c['model'] == 'tiny-sdxl'; p = load_pipe(S, c['model']); kw = dict(force_zeros_for_empty_prompt=True, add_watermarker=False) if big else dict(NONE, feature_extractor=fe)
        parts = {**{k: t for k, t in p.components.items() if k not in kw}, 'image_encoder': v, 'feature_extractor': fe}; kw.pop('feature_extractor', None)
        name = ('StableDiffusionXL' if big else 'StableDiffusion') + ('ControlNet' if 'controls' in c else '') + {'txt2img': '', 'img2img': 'Img2Img', 'inpaint': 'Inpaint'}[c['kind']] + 'Pipeline'
        if 'controls' in c: parts['controlnet'] = net(c['controls'][0]['model'])
        pipe = getattr(diffusers, name)(**parts, **kw)
        proj, ip = adapter(out, pipe.unet) if big else own
        pipe.load_ip_adapter({'image_proj': proj, 'ip_adapter': ip}, subfolder=None, weight_name=None, image_encoder_folder=None); pipe.set_ip_adapter_scale(c['ip_adapter']['scale'])
        extra = dict(ip_adapter_image=image(c['ip_adapter']['image']))
        if 'controls' in c: extra['image'] = image(c['controls'][0]['image'])
        if 'image' in c: extra['image'] = image(c['image'])
        if 'mask' in c: extra['mask_image'] = image(c['mask'])
        done.append(run_case(pipe, out, c, extra))


def main(out):
    os.makedirs(f'{out}/runs', exist_ok=True); done = []
    controls(out, done); adapters(out, done)
    for c in done:
        T = load_file(f'{out}/{c["file"]}'); last = f'latents.{G.c_last(T)}'; save({last: T[last]}, f'{out}/{c["file"]}')
    i = G.Index(out); i.add('control', done)


with torch.no_grad(): main(sys.argv[1])
