"""Reference outputs for what ../sdxl has not: schedules of few steps, schedulers that say less, inpainting U-Nets of SDXL, and its refiner.

    python make_xl_more.py OUT      where ../sdxl has been made

Needs what ../sdxl/make_golden_sdxl.py needs (versions in index.json); the same conventions hold, see ../sdxl/README.md. `tiny-sdxl-inpaint` and `tiny-refiner` have a U-Net and
model_index.json, all else is ../sdxl/tiny-sdxl's; the refiner has its second text encoder alone. `scheduler_remove` are keys that a run's scheduler_config.json does not have.
"""
import json, os, shutil, sys
HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, '..', 'sdxl'))
import make_golden_sdxl as G
from make_golden_sdxl import C, Image, UNet2DConditionModel, load_pipe, randomize, round_to, run_case, save, torch
from diffusers import StableDiffusionXLImg2ImgPipeline, StableDiffusionXLInpaintPipeline

SDXL = os.path.join(HERE, '..', 'sdxl')
PHOTO, MASK, SOFT = 'photo-64x48.png', 'mask-64x48.png', 'mask-soft-64x48.png'


def image(name): return Image.open(f'{SDXL}/inputs/{name}')


def unet(out, name, seed, **config):
    u = round_to(randomize(UNet2DConditionModel(sample_size=16, out_channels=4, **config), seed), torch.float16)
    d = f'{out}/{name}'; shutil.rmtree(d, ignore_errors=True)
    u.save_config(f'{d}/unet'); save(u.state_dict(), f'{d}/unet/diffusion_pytorch_model.safetensors', torch.float16, {'format': 'pt'})
    return u.eval()


def schedules():
    trailing = dict(timestep_spacing='trailing'); t, m = 'txt2img', 'tiny-sdxl'
    S = [C(f'turbo-{n}', m, t, sampler='euler_a', steps=n, guidance_scale=0.0, scheduler_config=trailing, seed=200 + n) for n in (1, 2, 4)]
    S += [C(f'lightning-{n}', m, t, sampler='euler', steps=n, guidance_scale=0.0, scheduler_config=trailing, seed=210 + n) for n in (2, 4, 8)]
    S += [C('lightning-1', m, t, sampler='euler', steps=1, guidance_scale=0.0, scheduler_config=dict(trailing, prediction_type='sample'), seed=211),
          C('lcm-trailing-4', m, t, sampler='lcm', steps=4, guidance_scale=1.5, scheduler_config=trailing, seed=220), C('ddim-trailing-6', m, t, sampler='ddim', steps=6, scheduler_config=trailing, seed=221),
          C('dpmpp2mk-trailing-6', m, t, sampler='dpmpp_2m_karras', steps=6, scheduler_config=trailing, seed=222), C('unipc-trailing-5', m, t, sampler='unipc', steps=5, scheduler_config=trailing, seed=223)]
    for i, s in enumerate(('euler', 'ddim', 'pndm')):
        S += [C(f'offset-0-{s}', m, t, sampler=s, scheduler_config=dict(steps_offset=0), seed=230 + i), C(f'offset-unsaid-{s}', m, t, sampler=s, scheduler_remove=['steps_offset'], seed=235 + i)]
    S += [C('clip-unsaid-ddim', m, t, sampler='ddim', scheduler_remove=['clip_sample'], seed=240), C('clip-ddim', m, t, sampler='ddim', scheduler_config=dict(clip_sample=True, clip_sample_range=2.0), seed=241),
          C('clip-ddpm', m, t, sampler='ddpm', scheduler_config=dict(clip_sample=True), seed=242), C('vpred-ddim', m, t, sampler='ddim', scheduler_config=dict(trailing, prediction_type='v_prediction', rescale_betas_zero_snr=True), guidance_scale=4.0, guidance_rescale=0.7, seed=243),
          C('vpred-euler_a', m, t, sampler='euler_a', scheduler_config=dict(trailing, prediction_type='v_prediction', rescale_betas_zero_snr=True), seed=244)]
    return S


def pictures(pipe, out, cases, done):
    for c in cases:
        extra = dict(image=image(c['image']))
        if 'mask' in c: extra['mask_image'] = image(c['mask'])
        extra.update({k: c[k] for k in ('aesthetic_score', 'negative_aesthetic_score') if k in c})
        done.append(run_case(pipe, out, c, extra))


def second(base, refiner, out, c):
    """The base's latents as they are at refiner_start, gone on with by the refiner."""
    kw = dict(prompt=c['prompt'], negative_prompt=c['negative_prompt'], guidance_scale=c['guidance_scale'], num_inference_steps=c['steps'])
    size = {k: tuple(c[k]) for k in ('original_size',) if k in c}
    base.scheduler, refiner.scheduler = (G.make_scheduler(c['sampler'], G.BASE[c['model']]) for _ in 'ab')
    z = base(**kw, **size, height=c['height'], width=c['width'], generator=torch.Generator().manual_seed(c['seed']), denoising_end=c['refiner_start'], output_type='latent').images
    T = {}
    def step(p, i, t, k): T[f'latents.{i + 1}'] = k['latents'].clone(); return k
    told = {k: c[k] for k in ('aesthetic_score', 'negative_aesthetic_score') if k in c}
    im = refiner(**kw, **size, **told, image=z, denoising_start=c['refiner_start'], output_type='pt', callback_on_step_end=step).images
    c.update(file=f'runs/{c["id"]}.safetensors', png=f'runs/{c["id"]}.png')
    save(T, f'{out}/{c["file"]}'); refiner.image_processor.numpy_to_pil(im.permute(0, 2, 3, 1).numpy())[0].save(f'{out}/{c["png"]}')
    print(c['id'], len(T), flush=True)
    return c


def main(out):
    os.makedirs(f'{out}/runs', exist_ok=True); done = []
    px = load_pipe(SDXL, 'tiny-sdxl'); whole = dict(G.BASE['tiny-sdxl'])
    for c in schedules():
        G.BASE['tiny-sdxl'] = {k: v for k, v in whole.items() if k not in c.get('scheduler_remove', ())}
        done.append(run_case(px, out, c))
    index = json.load(open(f'{SDXL}/tiny-sdxl/model_index.json'))

    name, spec = 'tiny-sdxl-inpaint', G.SPECS['tiny-sdxl']['unet']
    G.BASE[name] = whole
    parts = dict(vae=px.vae, text_encoder=px.text_encoder, text_encoder_2=px.text_encoder_2, tokenizer=px.tokenizer, tokenizer_2=px.tokenizer_2, scheduler=px.scheduler, add_watermarker=False)
    p = StableDiffusionXLInpaintPipeline(**parts, unet=unet(out, name, 500, in_channels=9, **spec))
    G.jdump({**index, '_class_name': 'StableDiffusionXLInpaintPipeline'}, f'{out}/{name}/model_index.json')
    pictures(p, out, [C('xl-inpaint9-100', name, 'inpaint', strength=1.0, image=PHOTO, mask=MASK, seed=250), C('xl-inpaint9-060', name, 'inpaint', sampler='ddim', steps=6, strength=0.6, image=PHOTO, mask=SOFT, negative_prompt=G.PROMPTS[1], seed=251)], done)

    name = 'tiny-refiner'
    G.BASE[name] = whole
    u = unet(out, name, 510, in_channels=4, block_out_channels=(8, 12, 16, 16), layers_per_block=1, down_block_types=('DownBlock2D', 'CrossAttnDownBlock2D', 'CrossAttnDownBlock2D', 'DownBlock2D'),
             up_block_types=('UpBlock2D', 'CrossAttnUpBlock2D', 'CrossAttnUpBlock2D', 'UpBlock2D'), transformer_layers_per_block=2, cross_attention_dim=48, attention_head_dim=(2, 3, 4, 4), norm_num_groups=4,
             use_linear_projection=True, addition_embed_type='text_time', addition_time_embed_dim=16, projection_class_embeddings_input_dim=40 + 5 * 16)
    parts.update(text_encoder=None, tokenizer=None, unet=u, requires_aesthetics_score=True, force_zeros_for_empty_prompt=False)
    G.jdump({**index, '_class_name': 'StableDiffusionXLImg2ImgPipeline', 'text_encoder': [None, None], 'tokenizer': [None, None], 'requires_aesthetics_score': True, 'force_zeros_for_empty_prompt': False}, f'{out}/{name}/model_index.json')
    t = 'img2img'
    pictures(StableDiffusionXLImg2ImgPipeline(**parts), out, [
        C('refine-03', name, t, steps=10, strength=0.3, image=PHOTO, seed=260),
        C('refine-told', name, t, sampler='dpmpp_2m_karras', steps=6, strength=0.6, image=PHOTO, negative_prompt=G.PROMPTS[1], aesthetic_score=7.5, negative_aesthetic_score=1.0, original_size=[90, 70], crops_coords_top_left=[5, 6],
          negative_original_size=[32, 24], negative_crops_coords_top_left=[0, 3], seed=261),
        C('refine-alone', name, t, sampler='euler_a', steps=6, strength=0.5, guidance_scale=1.0, image=PHOTO, seed=262)], done)
    pictures(StableDiffusionXLInpaintPipeline(**parts), out, [C('refine-inpaint', name, 'inpaint', sampler='ddim', steps=6, strength=0.6, image=PHOTO, mask=MASK, negative_prompt='', seed=263)], done)
    refiner = StableDiffusionXLImg2ImgPipeline(**parts); refiner.set_progress_bar_config(disable=True)
    G.BASE['tiny-sdxl'] = whole
    for c in [C('second-euler', 'tiny-sdxl', 'txt2img', steps=6, refiner='tiny-refiner', refiner_start=0.6, seed=270),
              C('second-heun', 'tiny-sdxl', 'txt2img', sampler='heun', steps=6, refiner='tiny-refiner', refiner_start=0.55, negative_prompt=G.PROMPTS[1], aesthetic_score=7.5, negative_aesthetic_score=1.0, original_size=[100, 60], seed=271),
              C('second-dpmpp', 'tiny-sdxl', 'txt2img', sampler='dpmpp_2m', steps=7, refiner='tiny-refiner', refiner_start=0.4, guidance_scale=1.0, seed=272),
              C('second-pndm', 'tiny-sdxl', 'txt2img', sampler='pndm', steps=7, refiner='tiny-refiner', refiner_start=0.7, negative_prompt='', seed=273)]:
        done.append(second(px, refiner, out, c))
    told = dict(latents_mean=[-1.6574, 1.886, -1.383, 2.5155], latents_std=[8.4927, 5.9022, 6.5498, 5.2299], scaling_factor=0.5)
    px.vae.register_to_config(**told); parts.update(text_encoder=px.text_encoder, tokenizer=px.tokenizer, unet=px.unet, requires_aesthetics_score=False, force_zeros_for_empty_prompt=True)
    done.append(run_case(px, out, C('moments-txt', 'tiny-sdxl', 'txt2img', vae_config=told, seed=280)))
    pictures(StableDiffusionXLImg2ImgPipeline(**parts), out, [C('moments-i2i', 'tiny-sdxl', t, steps=6, strength=0.5, image=PHOTO, vae_config=told, seed=281)], done)
    for c in done:                                       # of the latents the last ones, which all others are behind
        T = G.load_file(f'{out}/{c["file"]}'); last = f'latents.{G.c_last(T)}'; save({last: T[last]}, f'{out}/{c["file"]}')
    i = G.Index(out); i.add('more', done)


main(sys.argv[1])
