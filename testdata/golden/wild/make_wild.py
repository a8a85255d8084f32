"""What diffusers draws from models whose configs it has not saved itself, and the keys of configs that it knows.

    python make_wild.py draw OUT [NAME...]   the cases below: the edited keys, the last latents and the picture of each
    python make_wild.py keys FILE            the keys of every config that the reference reads, by class

A case is one of the models beside this folder with some keys of its JSON files changed, as ../README.md's goldens are not:
those were saved by diffusers, which had patched them. LMSDiscreteScheduler needs scipy.
"""
import dataclasses, inspect, json, os, re, shutil, sys, tempfile, textwrap, warnings
HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.dirname(HERE))
warnings.filterwarnings('ignore')
import diffusers, torch, transformers
from diffusers import StableDiffusionPipeline
from safetensors.torch import save_file
from make_golden import FURTHER, SAMPLERS, VERSIONS

DEL = '(deleted)'
S, U, V, T, K, I = ('scheduler/scheduler_config.json', 'unet/config.json', 'vae/config.json', 'text_encoder/config.json', 'tokenizer/tokenizer_config.json', 'model_index.json')
LONG = 'a very very very small fox on a blue background, a red apple, a castle, a sunflower, three pizzas'
# A file of which a training tool has written no more than it had to.
BARE = [(S, k, DEL) for k in ('clip_sample', 'clip_sample_range', 'steps_offset', 'set_alpha_to_one', 'timestep_spacing', 'prediction_type', 'rescale_betas_zero_snr',
                              'thresholding', 'dynamic_thresholding_ratio', 'sample_max_value', 'trained_betas')]
OLD = BARE + [(S, k, DEL) for k in ('beta_start', 'beta_end', 'beta_schedule', 'num_train_timesteps')]
# Keys that StableDiffusionPipeline contradicts.
CONTRARY = [(S, 'clip_sample', True), (S, 'clip_sample_range', 0.5), (S, 'steps_offset', 0)]
OWN = {'PNDMScheduler': [(S, 'skip_prk_steps', True)]}


def own(cls):
    return [(I, 'scheduler', ['diffusers', cls])] + OWN.get(cls, [])


def cases():
    yield 'own-bare', BARE, {}
    yield 'own-old', OLD, {}
    yield 'own-contrary', CONTRARY, {}
    yield 'own-null', [(S, 'steps_offset', None), (S, 'clip_sample', None)], {}
    yield 'own-unwritten', [*CONTRARY, (S, '_use_default_values', ['clip_sample', 'steps_offset', 'set_alpha_to_one', 'prediction_type'])], {}
    for name, (cls, _) in SAMPLERS.items():
        if not name.endswith(('_karras', '_sde')):
            yield f'own-{cls}', BARE + own(cls), dict(steps=3)
        if name == 'ddim': continue  # the model's own, which a request that names it gets unchanged
        yield f'bare-{name}', BARE, dict(sampler=name, steps=3)
        yield f'contrary-{name}', CONTRARY + [(S, 'set_alpha_to_one', DEL)], dict(sampler=name, steps=3)
        if name in ('lms', 'heun', 'euler', 'euler_a', 'dpmpp_2m', 'unipc'):  # whose own spacing is another
            yield f'leading-{name}', BARE + [(S, 'timestep_spacing', 'leading')], dict(sampler=name, steps=3)
    yield 'unwritten-ddpm', [*CONTRARY, (S, '_use_default_values', ['clip_sample', 'clip_sample_range', 'steps_offset'])], dict(sampler='ddpm')
    yield 'own-karras', BARE + own('EulerDiscreteScheduler') + [(S, 'use_karras_sigmas', True)], {}
    yield 'own-euler-as-karras', BARE + own('EulerDiscreteScheduler') + [(S, 'timestep_spacing', 'leading')], dict(sampler='euler_karras')
    yield 'own-sde', BARE + own('DPMSolverMultistepScheduler') + [(S, 'algorithm_type', 'sde-dpmsolver++')], {}
    yield 'own-sigma-min', BARE + own('DPMSolverMultistepScheduler') + [(S, 'final_sigmas_type', 'sigma_min'), (S, 'algorithm_type', 'deis'), (S, 'solver_type', 'bh2')], {}
    yield 'own-clips-euler', own('EulerDiscreteScheduler') + [(S, 'clip_sample', True)], dict(sampler='ddim')
    yield 'index-class', own('PNDMScheduler'), {}
    yield 'no-class', own('PNDMScheduler') + [(S, '_class_name', DEL)], {}
    yield 'other-class-of-file', [(S, '_class_name', 'EulerDiscreteScheduler')], {}
    yield 'unknown-euler', [(I, 'scheduler', ['diffusers', 'KDPM2DiscreteScheduler']), (S, '_class_name', 'KDPM2DiscreteScheduler')], dict(sampler='euler')
    yield 'unknown-bare-ddim', BARE + [(I, 'scheduler', ['diffusers', 'KDPM2DiscreteScheduler'])], dict(sampler='ddim')
    yield 'prk-pndm', BARE + [(I, 'scheduler', ['diffusers', 'PNDMScheduler'])], dict(sampler='pndm')
    yield 'thresholding-euler', [(S, 'thresholding', True)], dict(sampler='euler')
    for cls in ('DEISMultistepScheduler', 'UniPCMultistepScheduler'):
        yield f'{cls}-heun', [(I, 'scheduler', ['diffusers', cls]), (S, 'solver_type', 'heun')], dict(sampler='dpmpp_2m')
    yield 'scheduler-irrelevant', [(S, 'dynamic_thresholding_ratio', 0.5), (S, 'sample_max_value', 3.0), (S, 'sigma_min', 0.1), (S, 'flow_shift', 3.0), (S, 'foo', 'bar')], {}
    yield 'v-bare', BARE + [(S, 'prediction_type', 'v_prediction')], dict(base='tiny-v', sampler='euler')
    yield 'max-length', [(K, 'model_max_length', 20)], dict(prompt=LONG)
    yield 'max-len', [(K, 'model_max_length', DEL), (K, 'max_len', 12)], dict(prompt=LONG)
    yield 'tokenizer-irrelevant', [(K, k, v) for k, v in dict(add_bos_token=False, add_eos_token=False, add_prefix_space=True, do_lower_case=False, errors='strict', max_length=9, stride=2,
                                                              pad_to_multiple_of=11, truncation_strategy='only_first', model_input_names=['input_ids']).items()], dict(prompt='  A Fox, IN Blue ' + LONG)
    vocab = 'tokenizer/vocab.json'  # two bytes that no merge has make room for a textual inversion of two vectors
    yield 'inversion', [(vocab, '"', DEL), (vocab, '#', DEL), (vocab, '<cat>', 1), (vocab, '<cat>_1', 2), (K, 'additional_special_tokens', ['<cat>', '<cat>_1'])], dict(
        prompt='a <cat> on a blue <cat> background, the <CAT>', negative_prompt='no <cat>')
    yield 'old-version', [(U, '_diffusers_version', '0.6.0')], dict(steps=1)
    yield 'size-list', [(U, 'sample_size', [12, 20])], {}
    yield 'old-size-list', [(U, '_diffusers_version', '0.6.0'), (U, 'sample_size', [12, 16])], {}
    yield 'unet-irrelevant', [(U, k, v) for k, v in dict(_class_name='UNet2DModel', dropout=0.5, upcast_attention=True, addition_embed_type_num_heads=3, addition_time_embed_dim=8,
                                                         projection_class_embeddings_input_dim=9, foo='bar').items()], {}
    yield 'shift-factor', [(V, 'shift_factor', 3.0), (V, 'latents_mean', [1.0] * 4), (V, 'latents_std', [2.0] * 4)], {}
    yield 'vae-irrelevant', [(V, '_class_name', 'AutoencoderTiny'), (V, 'force_upcast', False), (V, 'sample_size', 512)], {}
    yield 'scaling-factor-default', [(V, 'scaling_factor', 1.5), (V, '_use_default_values', ['scaling_factor'])], {}
    yield 'text-irrelevant', [(T, k, v) for k, v in dict(model_type='clip', projection_dim=7, attention_dropout=0.5, initializer_range=9.0, initializer_factor=9.0, bos_token_id=0, eos_token_id=2,
                                                         pad_token_id=1, output_hidden_states=True, return_dict=False, chunk_size_feed_forward=3, dtype='float16').items()], {}
    whole = json.load(open(f'{HERE}/../tiny-sd15/{T}'))
    yield 'whole-clip', [(T, 'text_config', whole), (T, 'model_type', 'clip'), (T, 'hidden_act', 'gelu'), (T, 'layer_norm_eps', 0.1)], {}
    yield 'index-irrelevant', [(I, 'requires_safety_checker', True), (I, 'foo', ['diffusers', 'Bar'])], {}
    yield 'empty-prompt', [], dict(prompt='', steps=3)
    yield 'unguided-empty-prompt', [], dict(prompt='', guidance_scale=1.0, steps=3)
    # Sides that no level of the U-Net halves evenly. The pipeline wants multiples of 8 pixels, whatever its autoencoder's factor; drawn past that check.
    for base, sizes in {'tiny-sd15': [(34, 26), (2, 6)], 'tiny-v': [(40, 24), (36, 28), (12, 20), (4, 4)]}.items():
        for w, h in sizes:
            yield f'{base}-{w}x{h}', [], dict(base=base, width=w, height=h, steps=2)


def edit(base, edits):
    d = tempfile.mkdtemp() + '/' + base
    shutil.copytree(f'{HERE}/../{base}', d, ignore=shutil.ignore_patterns('golden'))
    for file, key, value in edits:
        o = json.load(open(f'{d}/{file}'))
        o.pop(key, None) if value == DEL else o.__setitem__(key, value)
        os.chmod(f'{d}/{file}', 0o644); json.dump(o, open(f'{d}/{file}', 'w'))
    return d


def draw(out, *only):
    torch.set_num_threads(1)
    index, latents = [], {}
    for name, edits, request in cases():
        if only and name not in only: continue
        r = {'base': 'tiny-sd15', 'sampler': '', 'prompt': 'fox on a blue background', 'negative_prompt': 'a castle', 'steps': 2, 'guidance_scale': 1.5, 'seed': 7, **request}
        d = edit(r['base'], edits)
        pipe = StableDiffusionPipeline.from_pretrained(d, torch_dtype=torch.float32, safety_checker=None, requires_safety_checker=False)
        shutil.rmtree(os.path.dirname(d))
        pipe.set_progress_bar_config(disable=True)
        pipe.check_inputs = lambda *args, **kwargs: None
        if r['sampler']:
            cls, extra = SAMPLERS[r['sampler']]
            pipe.scheduler = getattr(diffusers, cls).from_config(pipe.scheduler.config, **extra)
        def keep(_, step, t, kw):
            latents[name] = kw['latents'].clone(); return kw
        im = pipe(r['prompt'], negative_prompt=r['negative_prompt'], width=r.get('width'), height=r.get('height'), num_inference_steps=r['steps'], guidance_scale=r['guidance_scale'],
                  generator=torch.Generator().manual_seed(r['seed']), callback_on_step_end=keep).images[0]
        im.save(f'{out}/{name}.png')
        r['width'], r['height'] = (None, None) if 'width' not in request else (r['width'], r['height'])
        index.append({'name': name, **{k: v for k, v in r.items() if v is not None}, 'drawn_width': im.size[0], 'drawn_height': im.size[1],
                      'edits': [{'file': f, 'key': k, **({'delete': True} if v == DEL else {'value': v})} for f, k, v in edits]})
        print(name, im.size, flush=True)
    save_file({k: v.contiguous() for k, v in latents.items()}, f'{out}/latents.safetensors')
    json.dump({'versions': VERSIONS, 'cases': index}, open(f'{out}/index.json', 'w'), indent=None, separators=(',', ':'))


def signature(f):
    return [k for k, p in list(inspect.signature(f).parameters.items())[1:] if p.kind != p.VAR_KEYWORD]


def taken(f):
    """The keys that a function takes out of its keyword arguments."""
    return re.findall(r"kwargs\.(?:pop|get|setdefault)\(\s*\"(\w+)\"", textwrap.dedent(inspect.getsource(f)))


def keys(file):
    classes = {c: signature(getattr(diffusers, c).__init__) for c in sorted({cls for cls, _ in [*SAMPLERS.values(), *FURTHER.values()]} | {'UNet2DConditionModel', 'AutoencoderKL', 'ControlNetModel'})}
    classes['StableDiffusionPipeline'] = signature(StableDiffusionPipeline.__init__)
    from transformers import CLIPTextConfig, CLIPTokenizer
    from transformers.tokenization_utils_base import PreTrainedTokenizerBase
    from transformers.tokenization_utils_tokenizers import TokenizersBackend
    classes['CLIPTextModel'] = sorted({*(f.name for f in dataclasses.fields(CLIPTextConfig)), *taken(transformers.PreTrainedConfig.__post_init__), 'text_config', 'model_type', 'quantization_config',
                                       'use_attention_mask'})  # the last is read by the pipeline
    classes['CLIPTokenizer'] = sorted({*signature(CLIPTokenizer.__init__), *taken(TokenizersBackend.__init__), *taken(PreTrainedTokenizerBase.__init__), *taken(PreTrainedTokenizerBase._from_pretrained),
                                       'do_lower_case', 'errors', 'additional_special_tokens', 'added_tokens_decoder', 'tokenizer_class'} - {'_json_padding', '_json_truncation', '_spm_precompiled_charsmap'})
    for c in ('UNet2DConditionModel', 'AutoencoderKL', 'ControlNetModel'): classes[c].append('quantization_config')
    json.dump({'versions': VERSIONS, 'classes': {k: sorted(set(v)) for k, v in classes.items()}}, open(file, 'w'), indent=1)
    print({k: len(v) for k, v in classes.items()})


if __name__ == '__main__':
    {'draw': draw, 'keys': keys}[sys.argv[1]](*sys.argv[2:])
